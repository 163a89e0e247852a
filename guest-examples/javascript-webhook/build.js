// node build.js [starlingmonkey|quickjs]: makes webhook.wasm.

import { readFile, writeFile } from "node:fs/promises";

const engine = process.argv[2] ?? "starlingmonkey";
const wit = process.env.WIT ?? "../../wit";

const engines = {
  async starlingmonkey() {
    const { componentize } = await import("@bytecodealliance/componentize-js");
    return componentize({
      sourcePath: "starlingmonkey.js",
      witPath: wit,
      worldName: "http-function-sync",
      // Nothing here calls `fetch`, and requests come through the contract.
      disableFeatures: ["http", "fetch-event"],
    });
  },
  async quickjs() {
    const { componentize } = await import("componentize-qjs");
    return componentize({
      jsPath: "quickjs.js",
      jsSource: await readFile("quickjs.js", "utf8"),
      witPath: wit,
      world: "http-function",
      optSize: true,
    });
  },
};

if (!Object.hasOwn(engines, engine)) {
  throw new Error(`there is no engine ${engine}: ${Object.keys(engines).join(" or ")}`);
}
const { component } = await engines[engine]();
await writeFile("webhook.wasm", component);
