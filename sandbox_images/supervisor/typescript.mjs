// Imported by Node before a program in TypeScript: `node --import /opt/supervisor/typescript.mjs main.ts`.
// As in Node's own support, which comes with Node 22, types are erased and not checked.
import { createRequire, register } from "node:module";
import { readFileSync } from "node:fs";
import Module from "node:module";
import { resolve } from "node:path";
import { compiled } from "./typescript_hooks.mjs";

// Code that is in no file comes after `-e`, or from stdin. The program finds its own arguments alone.
const isGiven = process.execArgv.includes("--input-type=module");
let code;
if (isGiven) {
  const [from] = process.argv.splice(1, 1);
  code = from === "-e" ? process.argv.splice(1, 1)[0] : readFileSync(0, "utf8");
}
register("./typescript_hooks.mjs", import.meta.url, { data: code });

// Programs that were written for other runners mix `import` and `require`, which an ES module lacks.
const main = resolve(isGiven ? "code.ts" : process.argv[1]);
globalThis.require ??= createRequire(main);

for (const suffix of [".ts", ".cts", ".tsx"]) {
  Module._extensions[suffix] = (module, path) => {
    module._compile(compiled(readFileSync(path, "utf8"), path, "cjs"), path);
  };
}
