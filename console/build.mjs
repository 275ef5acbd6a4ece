// Builds the consoles into dist/: a page for each, and files whose names hold a hash of their content.
import { readFile, readdir, rm, mkdir, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { build } from "esbuild";

const OUT = "dist";
/** The pages, by their scripts: a tenant's console, and that of the deployment's operators. */
const PAGES = { main: "index.html", operator: "operator.html" };

await rm(OUT, { recursive: true, force: true });
await mkdir(OUT);
const { metafile } = await build({
  entryPoints: [...Object.keys(PAGES).map((each) => `src/${each}.tsx`), "src/icon.svg"],
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  minify: true,
  outdir: OUT,
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  loader: { ".svg": "copy" },
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});
const outputs = Object.entries(metafile.outputs);
const icon = outputs.map(([name]) => name).find((name) => name.endsWith(".svg"));
const page = await readFile("src/index.html", "utf8");
for (const [script, file] of Object.entries(PAGES)) {
  const [built, { cssBundle }] = outputs.find(([, each]) => each.entryPoint === `src/${script}.tsx`);
  const made = page
    .replace("main.js", basename(built))
    .replace("main.css", basename(cssBundle))
    .replace("icon.svg", basename(icon));
  await writeFile(join(OUT, file), made);
}
await writeFile(join(OUT, "licences.txt"), await licences(Object.keys(metafile.inputs)));

// The licences of the packages that the files contain ask for their texts to be passed on.
async function licences(inputs) {
  const packages = new Set();
  for (const input of inputs) {
    const found = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (found) packages.add(found[1]);
  }
  const texts = [];
  for (const name of [...packages].sort()) {
    const folder = join("node_modules", name);
    const file = (await readdir(folder)).find((each) => /^licen[cs]e/i.test(each));
    if (!file) throw new Error(`the package ${name} has no licence`);
    texts.push(`${name}\n\n${await readFile(join(folder, file), "utf8")}`);
  }
  return texts.join(`\n${"-".repeat(72)}\n\n`);
}
