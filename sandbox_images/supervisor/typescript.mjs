// Imported by Node before a program in TypeScript: `node --import /opt/supervisor/typescript.mjs main.ts`.
// As in Node's own support, which comes with Node 22, types are erased and not checked.
import { createRequire, register } from "node:module";
import { readFileSync } from "node:fs";
import Module from "node:module";
import { resolve } from "node:path";
import { compiled } from "./typescript_hooks.mjs";

register("./typescript_hooks.mjs", import.meta.url);

// Programs that were written for other runners mix `import` and `require`, which an ES module lacks.
const main = process.argv[1] === undefined ? resolve("code.ts") : resolve(process.argv[1]);
globalThis.require ??= createRequire(main);

for (const suffix of [".ts", ".cts", ".tsx"]) {
  Module._extensions[suffix] = (module, path) => {
    module._compile(compiled(readFileSync(path, "utf8"), path, "cjs"), path);
  };
}
