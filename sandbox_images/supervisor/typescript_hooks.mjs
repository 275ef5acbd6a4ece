// How Node finds and reads TypeScript: esbuild makes JavaScript of each file, with the places of its
// lines, so that tracebacks name those of the source. Node calls `resolve` and `load` in a thread of
// their own (https://nodejs.org/api/module.html#customization-hooks).
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { extname } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const ESBUILD = "/usr/bin/esbuild";
const LOADERS = { ".ts": "ts", ".mts": "ts", ".cts": "ts", ".tsx": "tsx" };
// TypeScript names what a file is compiled to: `./a.js` is `./a.ts`, where only that exists.
const SOURCES = { ".js": [".ts", ".tsx"], ".mjs": [".mts"], ".cjs": [".cts"] };
const MOST = 64 * 2 ** 20;

// A program that is in no file is as if it were in this one. The query keeps a file of that name apart.
const GIVEN = `${pathToFileURL(`${process.cwd()}/code.ts`).href}?given`;
let given;

export function initialize(code) {
  given = code;
}

export function compiled(source, path, format) {
  const options = [
    `--loader=${LOADERS[extname(path)] ?? "ts"}`,
    `--format=${format}`,
    `--sourcefile=${path}`,
    "--sourcemap=inline",
    "--sources-content=false",
    "--target=node18",
    "--log-level=error",
    "--log-limit=1",
    "--color=false",
  ];
  const done = spawnSync(ESBUILD, options, { input: source, encoding: "utf8", maxBuffer: MOST });
  if (done.error) throw done.error;
  if (done.status !== 0) throw refused(done.stderr, path);
  return done.stdout;
}

// As Node reports a fault of syntax: the place, the line, and what is wrong, without our own frames.
function refused(said, path) {
  const place = said.match(/:(\d+):(\d+):/);
  const what = said.match(/\[ERROR\] (.*)/)?.[1] ?? (said.trim() || "esbuild was killed");
  const at = `${path}${place ? `:${place[1]}:${Number(place[2]) + 1}` : ""}`;
  const error = new SyntaxError(`${what} (${at})`);
  error.stack = `SyntaxError: ${what}\n    at ${at}`;
  return error;
}

function isOurs(url) {
  return url.startsWith("file:") && extname(new URL(url).pathname) in LOADERS;
}

function candidates(url) {
  const path = fileURLToPath(url);
  const suffix = extname(path);
  const bare = path.slice(0, path.length - suffix.length);
  if (suffix in SOURCES) return SOURCES[suffix].map((each) => bare + each);
  return [".ts", ".tsx", "/index.ts"].map((each) => path + each);
}

export async function resolve(specifier, context, next) {
  if (specifier === "typescript:given") return { url: GIVEN, shortCircuit: true };
  const from = context.parentURL;
  const asksUs = from !== undefined && isOurs(from);
  if (asksUs && /^(\.{0,2}\/|file:)/.test(specifier)) {
    const url = new URL(specifier, from);
    const found = existsSync(fileURLToPath(url)) && extname(url.pathname) !== "" ? undefined : candidates(url).find(existsSync);
    if (found !== undefined) return next(found, context);
  }
  return next(specifier, context).catch((error) => {
    const frames = String(error.stack).split("\n");
    error.stack = frames.filter((frame) => !frame.includes(import.meta.url)).join("\n");
    throw error;
  });
}

export async function load(url, context, next) {
  if (!isOurs(url)) return next(url, context);
  const path = fileURLToPath(url);
  // Node reads CommonJS by `Module._extensions`, in the program's own thread.
  if (extname(path) === ".cts") return { format: "commonjs", source: null, shortCircuit: true };
  const source = url === GIVEN ? given : readFileSync(path, "utf8");
  return { format: "module", source: compiled(source, path, "esm"), shortCircuit: true };
}
