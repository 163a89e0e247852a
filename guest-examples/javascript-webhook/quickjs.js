// The handler on QuickJS, which has the language and nothing of the web: no TextEncoder, no
// console. Its handlers are `async`, or they trap.

import { answer } from "./webhook.js";

// By way of percent-encoding, which is UTF-8. What is none stays as it came, a character a byte.
function text(bytes) {
  let latin = "";
  for (let start = 0; start < bytes.length; start += 4096) {
    latin += String.fromCharCode(...bytes.subarray(start, start + 4096));
  }
  try {
    return decodeURIComponent(escape(latin));
  } catch {
    return latin;
  }
}

const bytes = (text) =>
  Uint8Array.from(unescape(encodeURIComponent(text)), (character) => character.charCodeAt(0));

export const http = {
  async handle(request) {
    const headers = request.headers.map(([name, value]) => [name, text(value)]);
    const { status, headers: out, body } = answer({
      method: request.method,
      target: request.pathWithQuery,
      headers: Object.fromEntries(headers),
      body: text(request.body),
    });
    return {
      status,
      headers: Object.entries(out).map(([name, value]) => [name, bytes(value)]),
      body: bytes(body),
    };
  },
};
