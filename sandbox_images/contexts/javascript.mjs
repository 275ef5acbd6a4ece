// A context of JavaScript: Node's own inspector evaluates the code, as its developer tools do.
//
// The inspector's `replMode` gives what a session needs: variables stay, `const` may be declared
// again, `await` works at the top. A second thread reads what the context is told, because only
// another thread can stop code that never returns.

import { writeSync } from "node:fs";
import { Session } from "node:inspector";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import { Worker } from "node:worker_threads";

const CONTROL_OUT = 4;
const PIECE = 16 * 1024;
const MOST_TRACE = 64 * 1024;
const MOST_INLINE = 192 * 1024;
const DISPLAY = Symbol.for("Jupyter.display");
const INTERRUPTED = { name: "Interrupted", value: "", traceback: "Interrupted" };

const shared = new Int32Array(new SharedArrayBuffer(4)); // the number of the run under way
const reader = new Worker(new URL("./javascript_reader.mjs", import.meta.url), {
  workerData: shared,
});
const session = new Session();
session.connect();

let token = "";
let count = 0;
let interrupt = () => {};
let tell = (report) => {
  let line = Buffer.from(`${token} ${JSON.stringify(report)}\n`);
  while (line.length > 0) {
    try {
      line = line.subarray(writeSync(CONTROL_OUT, line));
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
};

const post = (method, parameters) =>
  new Promise((resolve, reject) => {
    session.post(method, parameters, (error, answer) => (error ? reject(error) : resolve(answer)));
  });

// What a module would have; the inspector evaluates scripts.
const here = pathToFileURL(`${process.cwd()}/context.mjs`);
const require = createRequire(here);
const define = (name, value) =>
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
define("require", require);
define("__import", (name) => {
  const url = /^[./]/.test(name) ? new URL(name, here).href : name;
  // A package is looked for where the code is, not where this file is.
  if (!/^(node|file|data):/.test(url)) {
    try {
      const path = require.resolve(url);
      return import(path.startsWith("/") ? pathToFileURL(path).href : path);
    } catch (error) {
      if (error.code !== "ERR_PACKAGE_PATH_NOT_EXPORTED") throw error;
    }
  }
  return import(url);
});
define("display", (value) => show(value, false));
define("__show", (value) => show(value, true));
const { result: shower } = await post("Runtime.evaluate", { expression: "__show" });
delete globalThis.__show;

/** Tell a value as a result: its own kinds, or what Node prints of it. */
function show(value, main) {
  let kinds = { "text/plain": inspect(value, { depth: 4 }) };
  if (value !== null && typeof value === "object" && typeof value[DISPLAY] === "function") {
    kinds = value[DISPLAY]() ?? kinds;
  }
  for (const [mime, said] of Object.entries(kinds)) {
    const text = typeof said === "string" ? said : JSON.stringify(said);
    if (text === undefined || (typeof said !== "string" && text.length > MOST_INLINE)) continue;
    for (const piece of pieces(text)) {
      tell({ say: "value", mime, json: typeof said !== "string", text: piece });
    }
  }
  tell({ say: "result", main });
}

/** Yield a text in pieces, none of which ends within a character. */
function* pieces(text) {
  let at = 0;
  do {
    const within = (text.charCodeAt(at + PIECE - 1) & 0xfc00) === 0xd800;
    const end = at + PIECE + (within ? 1 : 0);
    yield text.slice(at, end);
    at = end;
  } while (at < text.length);
}

/** Return code with its imports written so that a script may have them. */
function importing(code) {
  if (!/\bimport\b/.test(code)) return code;
  return code
    .replace(
      /^import\s+(?:([\w$]+)\s*,\s*)?(?:\*\s*as\s+([\w$]+)|\{([^}]*)\}|([\w$]+))\s+from\s*(["'][^"']+["'])/gm,
      (_, first, all, some, alone, from) => {
        const named = [];
        if (first ?? alone) named.push(`default: ${first ?? alone}`);
        if (some) named.push(some.replace(/\bas\b/g, ":"));
        if (all) return `const ${all} = await __import(${from})`;
        return `const { ${named.join(", ")} } = await __import(${from})`;
      },
    )
    .replace(/^import\s*(["'][^"']+["'])/gm, "await __import($1)")
    .replace(/(?<![\w$.'"`])import\s*\(/g, "__import(");
}

/** Return what a thrown value is. */
function thrown(details) {
  const { exception, text } = details;
  if (exception?.subtype !== "error") {
    const value = exception?.description ?? String(exception?.value ?? text);
    return { name: "Error", value, traceback: `Uncaught ${value}` };
  }
  const lines = (exception.description ?? text).split("\n");
  // Below the code's own frames are those of this file.
  const ours = lines.findIndex((line) => /^ +at .*(javascript\.mjs|node:inspector)/.test(line));
  const traceback = lines.slice(0, ours < 0 ? lines.length : ours).join("\n");
  const [first] = traceback.split("\n");
  return {
    name: exception.className ?? "Error",
    value: first.slice(first.indexOf(": ") < 0 ? first.length : first.indexOf(": ") + 2),
    traceback,
  };
}

async function evaluated(code) {
  const answer = await post("Runtime.evaluate", {
    expression: importing(code),
    replMode: true,
    awaitPromise: true,
    objectGroup: "run",
  });
  if (answer.exceptionDetails) return thrown(answer.exceptionDetails);
  if (answer.result.type === "undefined") return null;
  const { result } = answer;
  const argument =
    result.objectId !== undefined
      ? { objectId: result.objectId }
      : result.unserializableValue !== undefined
        ? { unserializableValue: result.unserializableValue }
        : { value: result.value };
  const shown = await post("Runtime.callFunctionOn", {
    functionDeclaration: "function (value) { return this(value) }",
    objectId: shower.objectId,
    arguments: [argument],
  });
  return shown.exceptionDetails ? thrown(shown.exceptionDetails) : null;
}

async function run({ run: number, code, env }) {
  const before = Object.fromEntries(Object.keys(env).map((name) => [name, process.env[name]]));
  Object.assign(process.env, env);
  Atomics.store(shared, 0, number);
  count += 1;
  const stopped = new Promise((resolve) => {
    interrupt = (which) => which === number && resolve(INTERRUPTED);
  });
  const error = await Promise.race([
    stopped,
    evaluated(code).catch((problem) =>
      /terminated/.test(problem.message)
        ? INTERRUPTED
        : { name: "Error", value: problem.message, traceback: problem.message },
    ),
  ]);
  Atomics.store(shared, 0, 0);
  await post("Runtime.releaseObjectGroup", { objectGroup: "run" });
  for (const [name, value] of Object.entries(before)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  if (error !== null) {
    const cut = (text) => text.toWellFormed?.().slice(0, MOST_TRACE) ?? text.slice(0, MOST_TRACE);
    tell({
      say: "error",
      error: cut(error.name).slice(0, 256),
      value: cut(error.value).slice(0, PIECE),
      traceback: cut(error.traceback),
    });
  }
  tell({ say: "ended", count, exit_code: error === null ? 0 : 1 });
}

process.on("SIGINT", () => {});
process.on("uncaughtException", (error) => console.error(error));
process.on("unhandledRejection", (error) => console.error(error));
reader.on("message", (said) => {
  if (said.token !== undefined) {
    token = said.token;
    tell({ say: "ready" });
  } else if (said.interrupt !== undefined) {
    interrupt(said.interrupt);
  } else {
    run(said);
  }
});
reader.on("exit", () => process.exit(0));
