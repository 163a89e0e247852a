// The handler on StarlingMonkey, which exports synchronous functions only: hence the twin.

import { requestId } from "dunlin:event/context@0.1.0";
import { answer } from "./webhook.js";

const text = new TextDecoder();
const bytes = new TextEncoder();

export const httpSync = {
  handle(request) {
    const headers = request.headers.map(([name, value]) => [name, text.decode(value)]);
    const { status, headers: out, body } = answer({
      method: request.method,
      target: request.pathWithQuery,
      headers: Object.fromEntries(headers),
      body: text.decode(request.body),
    });
    if (status !== 200) {
      // One line of JSON with `level` and `message` keeps both in the host's log.
      console.log(JSON.stringify({ level: "warn", message: "refused", status, id: requestId() }));
    }
    return {
      status,
      headers: Object.entries(out).map(([name, value]) => [name, bytes.encode(value)]),
      body: bytes.encode(body),
    };
  },
};
