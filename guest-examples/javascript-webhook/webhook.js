// A webhook of a forge (Forgejo, Gitea, GitHub) in, the line for a chat room out.
//
// It knows nothing of the engine it runs on: `starlingmonkey.js` and `quickjs.js` bind it to the
// contract.

/** What the sender is told, and not the fault of this function. */
class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** A member of the payload, by its path: `repository.full_name`. */
function member(payload, path, type) {
  const value = path.split(".").reduce((object, name) => object?.[name], payload);
  if (typeof value !== type) {
    throw new Refused(422, `\`${path}\` is no ${type}`);
  }
  return value;
}

const firstLine = (text) => text.split("\n", 1)[0];

/** What is said about each event. */
const EVENTS = {
  ping: (payload) => `${member(payload, "repository.full_name", "string")} is connected`,
  push(payload) {
    if (!Array.isArray(payload?.commits)) {
      throw new Refused(422, "`commits` is no array");
    }
    const who = member(payload, "pusher.name", "string");
    const branch = member(payload, "ref", "string").replace(/^refs\/(heads|tags)\//, "");
    const count = payload.commits.length;
    const lines = payload.commits.map((commit) => {
      const id = member(commit, "id", "string").slice(0, 7);
      return `• ${id} ${firstLine(member(commit, "message", "string"))}`;
    });
    const where = `${branch} of ${member(payload, "repository.full_name", "string")}`;
    const what = `${who} pushed ${count} ${count === 1 ? "commit" : "commits"} to ${where}`;
    return [what, ...lines].join("\n");
  },
  issues(payload) {
    const number = member(payload, "issue.number", "number");
    const title = member(payload, "issue.title", "string");
    const who = member(payload, "sender.login", "string");
    return `${who} ${member(payload, "action", "string")} #${number}: ${title}`;
  },
};

/** The parameters of a query; what is no percent-encoding stays as it is. */
function parameters(target) {
  const query = target.split("?")[1] ?? "";
  const decode = (text) => {
    try {
      return decodeURIComponent(text.replaceAll("+", " "));
    } catch {
      return text;
    }
  };
  const pairs = query.split("&").filter((pair) => pair !== "");
  return Object.fromEntries(pairs.map((pair) => {
    const [name, ...value] = pair.split("=");
    return [decode(name), decode(value.join("="))];
  }));
}

function message({ method, target, headers, body }) {
  if (method !== "POST") {
    throw new Refused(405, `${method} is not answered here`);
  }
  const event = headers["x-github-event"];
  if (!Object.hasOwn(EVENTS, event ?? "")) {
    const known = Object.keys(EVENTS).join(", ");
    throw new Refused(400, `the header x-github-event is ${event ?? "missing"}, not one of ${known}`);
  }
  let payload;
  try {
    payload = JSON.parse(body);
  } catch (error) {
    throw new Refused(400, `the body is no JSON: ${error.message}`);
  }
  return { channel: parameters(target).channel ?? "general", text: EVENTS[event](payload) };
}

/** Answers a request whose parts are text, with a status, headers and a text. */
export function answer(request) {
  const json = (status, value, more = {}) => ({
    status,
    headers: { "content-type": "application/json", ...more },
    body: JSON.stringify(value),
  });
  try {
    return json(200, message(request));
  } catch (error) {
    if (!(error instanceof Refused)) {
      throw error;
    }
    const allow = error.status === 405 ? { allow: "POST" } : {};
    return json(error.status, { error: error.message }, allow);
  }
}
