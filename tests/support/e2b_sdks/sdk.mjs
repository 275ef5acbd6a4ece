// The cases for JavaScript: `node sdk.mjs PACKAGE`, in a folder that has the package.
//
// Writes a line of JSON for each case, as soon as it is over.

import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as pause } from "node:timers/promises";

const CASE_MS = 150_000;
const WITHIN_MS = 60_000;
const UNKNOWN = "0".repeat(32);
const PORT = 8124;

const CASES = {
  "e2b": {
    async created_and_killed({ sdk, own }) {
      await own({}, async (box) => {
        assert.equal(await box.isRunning(), true);
        assert.equal(await box.kill(), true);
        assert.equal(await box.isRunning(), false);
        assert.equal(await box.kill(), false);
        await assert.rejects(sdk.Sandbox.connect(box.sandboxId), sdk.NotFoundError);
      });
    },
    async connected_to({ sdk, box }) {
      await box.files.write("from-before", "the same sandbox");
      const again = await sdk.Sandbox.connect(box.sandboxId);
      assert.equal(await again.files.read("from-before"), "the same sandbox");
      await assert.rejects(sdk.Sandbox.connect(UNKNOWN), sdk.NotFoundError);
    },
    async described_and_listed({ sdk, own }) {
      const mark = crypto.randomUUID();
      await own({ metadata: { mark }, timeoutMs: 60_000 }, async (box) => {
        const info = await box.getInfo();
        assert.equal(info.sandboxId, box.sandboxId);
        assert.deepEqual(info.metadata, { mark });
        assert.equal(info.state, "running");
        assert.ok(info.endAt > info.startedAt);
        const pages = sdk.Sandbox.list({ query: { metadata: { mark } } });
        const found = await pages.nextItems();
        assert.deepEqual(found.map((each) => each.sandboxId), [box.sandboxId]);
        await box.setTimeout(600_000);
        assert.ok((await box.getInfo()).endAt - info.endAt > 500_000);
      });
    },
    async paused_and_resumed({ sdk, own }) {
      await own({}, async (box) => {
        await box.files.write("kept", "over the pause");
        await box.pause();
        assert.equal((await box.getInfo()).state, "paused");
        const again = await sdk.Sandbox.connect(box.sandboxId);
        assert.equal(await again.files.read("kept"), "over the pause");
      });
    },
    async copied_by_a_snapshot({ sdk, own }) {
      await own({}, async (box) => {
        await box.files.write("copied", "as it was");
        const { snapshotId } = await box.createSnapshot();
        await box.files.write("copied", "changed since");
        const listed = await box.listSnapshots().nextItems();
        assert.ok(listed.some((each) => each.snapshotId === snapshotId));
        const copy = await sdk.Sandbox.create(snapshotId, { timeoutMs: 60_000 });
        assert.equal(await copy.files.read("copied"), "as it was");
        await copy.kill();
        assert.equal(await sdk.Sandbox.deleteSnapshot(snapshotId), true);
      });
    },
    async forked({ own }) {
      await own({}, async (box) => {
        await box.files.write("copied", "to each");
        const forks = await box.fork({ count: 2, timeoutMs: 60_000 });
        assert.equal(forks.length, 2);
        for (const each of forks) {
          if (each instanceof Error) throw each;
          assert.equal(await each.files.read("copied"), "to each");
          await each.kill();
        }
      });
    },
    async measured({ box }) {
      const [sample] = await becomes(async () => {
        const samples = await box.getMetrics();
        return samples.length > 0 && samples;
      });
      assert.ok(sample.memUsed > 0 && sample.memUsed <= sample.memTotal);
    },
    async port_has_a_host({ box }) {
      await box.files.write("served/page.txt", "from inside");
      const server = await box.commands.run(`exec python3 -m http.server --bind 127.0.0.1 ${PORT}`, {
        background: true,
        cwd: "served",
        timeoutMs: 0,
      });
      const host = box.getHost(PORT);
      assert.equal(host, `${PORT}-${box.sandboxId}.${process.env.E2B_TEST_PORTS_DOMAIN}`);
      const token = box.trafficAccessToken;
      const headers = { host, ...(token ? { "E2B-Traffic-Access-Token": token } : {}) };
      const page = await becomes(() => fetched(`${process.env.E2B_TEST_API}/page.txt`, headers));
      assert.equal(page, "from inside");
      await server.kill();
    },
    async network_rules_are_changed({ own }) {
      const { E2B_TEST_OPEN_HOST: host } = process.env;
      const look = `curl -s -o /dev/null -w '%{http_connect}' https://${host}/ || true`;
      await own({}, async (box) => {
        assert.match((await box.commands.run(look)).stdout, /^(000|403)$/);
        await box.updateNetwork({ allowOut: [host] });
        assert.match((await box.commands.run(look)).stdout, /^50[24]$/);
      });
    },
    async key_is_wrong({ sdk }) {
      const apiKey = `e2b_${"0".repeat(40)}`;
      await assert.rejects(sdk.Sandbox.create({ apiKey }), sdk.AuthenticationError);
    },
    async unsupported_is_refused({ sdk, box }) {
      await assert.rejects(sdk.Sandbox.create("no-such-template"), /no-such-template/);
      await assert.rejects(box.commands.run("true", { user: "root" }), /root/);
      await assert.rejects(sdk.Sandbox.create({ volumeMounts: { "/mnt": "v" } }), /olume/);
    },
    async command_in_the_foreground({ sdk, box }) {
      const done = await box.commands.run("echo out; echo err >&2");
      assert.deepEqual([done.exitCode, done.stdout, done.stderr], [0, "out\n", "err\n"]);
      await assert.rejects(box.commands.run("exit 3"), (error) => {
        assert.ok(error instanceof sdk.CommandExitError);
        assert.equal(error.exitCode, 3);
        return true;
      });
    },
    async command_streams_its_output({ box }) {
      await box.commands.run("rm -f go");
      const heard = [];
      const onStdout = (text) => {
        heard.push(text);
        if (text.includes("ready")) return box.files.write("go", "");
      };
      const waits = "echo ready; while [ ! -e go ]; do sleep 0.05; done; echo done";
      const done = await box.commands.run(waits, { onStdout, timeoutMs: 30_000 });
      assert.equal(done.stdout, "ready\ndone\n");
      assert.equal(heard.join(""), "ready\ndone\n");
    },
    async command_that_takes_too_long({ sdk, box }) {
      await assert.rejects(
        box.commands.run("exec sleep 4323", { timeoutMs: 1000 }),
        sdk.TimeoutError,
      );
      await becomes(async () => !(await box.commands.run("pgrep -f '^sleep 4323' || true")).stdout);
    },
    async command_in_the_background({ box }) {
      const handle = await box.commands.run("head -n 1", { background: true, stdin: true });
      assert.ok((await box.commands.list()).some((each) => each.pid === handle.pid));
      const again = await box.commands.connect(handle.pid);
      await box.commands.sendStdin(handle.pid, "given\n");
      assert.equal((await handle.wait()).stdout, "given\n");
      assert.equal((await again.wait()).exitCode, 0);
    },
    async command_stdin_ends({ box }) {
      const handle = await box.commands.run("cat; echo ended", { background: true, stdin: true });
      await box.commands.sendStdin(handle.pid, "all of it ");
      await box.commands.closeStdin(handle.pid);
      assert.equal((await handle.wait()).stdout, "all of it ended\n");
    },
    async command_is_killed({ box }) {
      const handle = await box.commands.run("exec sleep 4324", { background: true });
      assert.equal(await handle.kill(), true);
      await assert.rejects(handle.wait());
      assert.equal(await box.commands.kill(handle.pid), false);
    },
    async terminal({ box }) {
      let seen = "";
      const onData = (data) => {
        seen += new TextDecoder().decode(data);
      };
      const { pid } = await box.pty.create({ rows: 24, cols: 80, onData });
      const say = (text) => box.pty.sendInput(pid, new TextEncoder().encode(text));
      await say("stty size; echo is $((40 + 2))\n");
      await becomes(() => seen.includes("is 42"));
      assert.match(seen, /24 80/);
      await box.pty.resize(pid, { rows: 50, cols: 100 });
      await say("stty size; echo was $((40 + 3))\n");
      await becomes(() => seen.includes("was 43"));
      assert.match(seen, /50 100/);
      assert.equal(await box.pty.kill(pid), true);
    },
    async file_of_text_and_bytes({ sdk, box }) {
      const wrote = await box.files.write("note.txt", "häßlich\n");
      assert.equal(wrote.path, "/home/user/note.txt");
      assert.equal(await box.files.read("note.txt"), "häßlich\n");
      const data = Uint8Array.from({ length: 1 << 20 }, (_, at) => at % 251);
      await box.files.write("data.bin", data.buffer);
      assert.deepEqual(await box.files.read("data.bin", { format: "bytes" }), data);
      const blob = await box.files.read("data.bin", { format: "blob" });
      assert.equal(blob.size, data.length);
      const pieces = [];
      for await (const each of await box.files.read("data.bin", { format: "stream" })) {
        pieces.push(each);
      }
      assert.deepEqual(new Uint8Array(Buffer.concat(pieces)), data);
      await assert.rejects(box.files.read("no-such-file"), sdk.NotFoundError);
    },
    async files_many_at_once({ box }) {
      const many = Array.from({ length: 10 }, (_, n) => ({ path: `many/${n}`, data: `${n}` }));
      const wrote = await box.files.write(many);
      assert.equal(wrote.length, 10);
      assert.equal(await box.files.read("many/7"), "7");
    },
    async files_are_changed({ box }) {
      await box.commands.run("rm -rf tree");
      assert.equal(await box.files.makeDir("tree/a"), true);
      assert.equal(await box.files.makeDir("tree/a"), false);
      await box.files.write("tree/f", "123");
      const entries = await box.files.list("tree", { depth: 2 });
      assert.deepEqual(entries.map((each) => each.name).sort(), ["a", "f"]);
      assert.equal((await box.files.getInfo("tree/f")).size, 3);
      assert.equal((await box.files.rename("tree/f", "tree/g")).path, "/home/user/tree/g");
      assert.equal(await box.files.exists("tree/f"), false);
      await box.files.remove("tree");
      assert.equal(await box.files.exists("tree"), false);
    },
    async folder_is_watched({ box }) {
      await box.commands.run("rm -rf watched; mkdir -p watched/below");
      const seen = new Set();
      const watch = await box.files.watchDir(
        "watched",
        (event) => {
          seen.add(`${event.type} ${event.name}`);
        },
        { recursive: true },
      );
      await box.commands.run("echo 1 > watched/below/f; rm watched/below/f");
      await becomes(() => seen.has("create below/f") && seen.has("remove below/f"));
      await watch.stop();
    },
    async file_by_a_signed_address({ box }) {
      await box.files.write("shared.txt", "for whoever has the address");
      const address = await box.downloadUrl("shared.txt", { useSignatureExpiration: 60 });
      assert.equal(await (await fetch(address)).text(), "for whoever has the address");
      const other = await fetch(address.replace("shared.txt", "note.txt"));
      assert.ok(!other.ok);
      const form = new FormData();
      form.append("file", new Blob(["uploaded"]), "up.txt");
      const to = await box.uploadUrl("up.txt", { useSignatureExpiration: 60 });
      assert.ok((await fetch(to, { method: "POST", body: form })).ok);
      assert.equal(await box.files.read("up.txt"), "uploaded");
    },
    async git({ box }) {
      const repo = "/home/user/repository";
      await box.commands.run(`rm -rf ${repo}`);
      await box.git.init(repo, { initialBranch: "main" });
      await box.files.write(`${repo}/a.txt`, "first\n");
      const status = await box.git.status(repo);
      assert.deepEqual(status.fileStatus.map((each) => each.name), ["a.txt"]);
    },
    async template_is_built_and_its_sandboxes_are_listed({ sdk, ownOf }) {
      const { Template, Sandbox } = sdk;
      const name = named("js-built");
      const template = Template()
        .fromBaseImage()
        .runCmd("useradd --create-home --shell /bin/bash app", { user: "root" })
        .setEnvs({ GREETING: "hello" })
        .setUser("app")
        .runCmd(["mkdir ~/made", "echo mine > ~/made/it"])
        .setWorkdir("/home/app/made");
      const heard = [];
      const onBuildLogs = (entry) => heard.push(entry.message);
      const sizes = { cpuCount: 1, memoryMB: 384 };
      const info = await begun(() => Template.build(template, name, { ...sizes, onBuildLogs }));
      assert.equal(info.name, name);
      assert.ok(heard.some((each) => each.includes("echo mine")), heard.join("\n"));
      await ownOf(name, async (box) => {
        const done = await box.commands.run("id -un; pwd; cat it; echo $GREETING");
        assert.equal(done.stdout, "app\n/home/app/made\nmine\nhello\n");
        await assert.rejects(box.commands.run("true", { user: "user" }), /no user 'user'/);
        const told = await box.getInfo();
        assert.deepEqual(
          [told.templateId, told.name, told.cpuCount, told.memoryMB],
          [info.templateId, name, 1, 384],
        );
        for (const each of [name, `${name}:default`, info.templateId]) {
          const found = await Sandbox.list({ query: { template: each } }).nextItems();
          assert.deepEqual(found.map((one) => one.sandboxId), [box.sandboxId], each);
        }
      });
    },
    async template_is_followed_and_tagged({ sdk, ownOf }) {
      const { Template } = sdk;
      const name = named("js-tagged");
      assert.equal(await Template.exists(name), false);
      const template = Template().fromTemplate("base").runCmd(`echo ${name} > made`);
      const info = await begun(() => Template.buildInBackground(template, name, { tags: ["v1"] }));
      const heard = [];
      await becomes(async () => {
        const status = await Template.getBuildStatus(info, { logsOffset: heard.length });
        heard.push(...status.logEntries.map((entry) => entry.message));
        assert.notEqual(status.status, "error", status.reason?.message);
        return status.status === "ready";
      });
      assert.ok(heard.join("").includes(`echo ${name}`), heard.join("\n"));
      const given = await Template.assignTags(`${name}:v1`, ["stable", "v2"]);
      assert.equal(given.buildId, info.buildId);
      await Template.removeTags(name, "v2");
      const tags = await Template.getTags(name);
      assert.deepEqual(tags.map((each) => each.tag).sort(), ["stable", "v1"]);
      assert.equal(await Template.exists(`${name}:stable`), true);
      assert.equal(await Template.aliasExists("code-interpreter-v1"), true);
      await ownOf(`${name}:stable`, async (box) => {
        assert.equal(await box.files.read("made"), `${name}\n`);
      });
    },
    async template_gets_files({ sdk, ownOf }) {
      const name = named("js-copied");
      const folder = await mkdtemp(join(tmpdir(), "copied-"));
      try {
        await mkdir(join(folder, "app"));
        await writeFile(join(folder, "app", "main.js"), "console.log('from the template');");
        await writeFile(join(folder, "one"), "1");
        const template = sdk
          .Template({ fileContextPath: folder })
          .fromBaseImage()
          .copy("app", "/home/user/app/")
          .copyItems([{ src: "one", dest: "both/" }]);
        await begun(() => sdk.Template.build(template, name));
      } finally {
        await rm(folder, { recursive: true });
      }
      await ownOf(name, async (box) => {
        const done = await box.commands.run("node app/main.js; cat both/one");
        assert.equal(done.stdout, "from the template\n1");
      });
    },
    async template_starts_a_server({ sdk, ownOf }) {
      const { Template, waitForPort } = sdk;
      const name = named("js-serves");
      const dockerfile = ["FROM e2bdev/base:latest", "WORKDIR /srv/page", "RUN echo it > page.txt"];
      const serves = "python3 -m http.server 8000 --directory /srv/page";
      const template = Template()
        .fromDockerfile(dockerfile.join("\n"))
        .setStartCmd(serves, waitForPort(8000));
      assert.match(Template.toDockerfile(template), /RUN echo it/);
      await begun(() => Template.build(template, name));
      await ownOf(name, async (box) => {
        const done = await box.commands.run("curl -sS http://127.0.0.1:8000/page.txt; id -un");
        assert.equal(done.stdout, "it\nuser\n");
      });
    },
    async template_that_cannot_be_is_refused({ sdk }) {
      const { Template } = sdk;
      const refused = [
        [Template().fromImage("python:3.12"), /there is no image 'python:3.12'/],
        [Template().fromBaseImage().setUser("root"), /nobody is root in a sandbox/],
        [Template().fromAWSRegistry("own", { accessKeyId: "k", secretAccessKey: "s", region: "r" }),
          /no registry is used/],
      ];
      for (const [template, reason] of refused) {
        await assert.rejects(Template.build(template, "js-refused"), reason);
      }
      const failing = Template().skipCache().fromBaseImage().runCmd("exit 7");
      await assert.rejects(
        begun(() => Template.build(failing, named("js-fails"))),
        (error) => error instanceof sdk.BuildError && /exited with 7/.test(error.message),
      );
    },
  },
  "@e2b/code-interpreter": {
    async code_has_a_value_and_output({ box }) {
      const seen = [];
      const onStdout = (message) => {
        seen.push(message.line);
      };
      const ran = await box.runCode("print('out')\n6 * 7", { onStdout });
      assert.equal(ran.text, "42");
      assert.deepEqual(ran.logs.stdout, ["out\n"]);
      assert.deepEqual(seen, ["out\n"]);
      const failed = await box.runCode("1 / 0");
      assert.equal(failed.error.name, "ZeroDivisionError");
    },
    async code_keeps_its_variables({ box }) {
      const first = await box.runCode("kept = 41");
      const second = await box.runCode("kept + 1");
      assert.equal(second.text, "42");
      assert.equal(second.executionCount, first.executionCount + 1);
    },
    async code_with_environment({ box }) {
      const look = "import os; os.environ.get('GIVEN')";
      assert.equal((await box.runCode(look, { envs: { GIVEN: "x" } })).text, "x");
    },
    async code_that_takes_too_long_is_interrupted({ sdk, box }) {
      await box.runCode("kept = 'still here'");
      await assert.rejects(box.runCode("while True: pass", { timeoutMs: 1000 }), sdk.TimeoutError);
      assert.equal((await box.runCode("kept")).text, "still here");
    },
    async code_in_other_languages({ box }) {
      const script = await box.runCode("const n = 41; n + 1", { language: "javascript" });
      assert.equal(script.text, "42");
      const shell = await box.runCode("echo hi", { language: "bash" });
      assert.deepEqual(shell.logs.stdout, ["hi\n"]);
      // Its message is the status alone: this SDK leaves out what the server says.
      await assert.rejects(box.runCode("1", { language: "r" }), /400/);
    },
    async contexts({ sdk, box }) {
      const context = await box.createCodeContext({ cwd: "/tmp" });
      assert.equal(context.cwd, "/tmp");
      await box.runCode("own = 1", { context });
      assert.ok((await box.listCodeContexts()).some((each) => each.id === context.id));
      await box.restartCodeContext(context);
      assert.equal((await box.runCode("'own' in globals()", { context })).text, "False");
      await box.removeCodeContext(context);
      await assert.rejects(box.runCode("1", { context }), sdk.NotFoundError);
    },
    async results_and_charts({ box }) {
      const ran = await box.runCode(
        "import matplotlib.pyplot as plt\nplt.plot([1, 2], [3, 4], label='l')\nplt.show()",
        { timeoutMs: 120_000 },
      );
      const [figure] = ran.results.filter((each) => each.png);
      assert.equal(figure.chart.type, "line");
      assert.deepEqual(figure.chart.elements, [{ label: "l", points: [[1, 3], [2, 4]] }]);
      const framed = await box.runCode("import pandas as pd\npd.DataFrame({'a': [1]})");
      assert.match(framed.results[0].html, /<table/);
      assert.deepEqual(framed.results[0].data, { a: [1] });
    },
  },
};

function named(prefix) {
  return `${prefix}-${crypto.randomUUID().slice(0, 12)}`;
}

// A tenant builds eight templates at once; others may be building theirs.
async function begun(build) {
  const deadline = Date.now() + WITHIN_MS;
  for (;;) {
    try {
      return await build();
    } catch (error) {
      if (!/templates already/.test(error.message) || Date.now() > deadline) throw error;
    }
    await pause(1000);
  }
}

async function becomes(what) {
  const deadline = Date.now() + WITHIN_MS;
  for (;;) {
    const found = await what();
    if (found) return found;
    assert.ok(Date.now() < deadline, `still ${found}`);
    await pause(50);
  }
}

// Node's own `fetch` does not let a caller choose the header Host.
function fetched(address, headers) {
  return new Promise((resolve) => {
    const asked = request(address, { headers, agent: false }, (answer) => {
      let text = "";
      answer.on("data", (piece) => (text += piece));
      answer.on("end", () => resolve(answer.statusCode === 200 ? text : ""));
    });
    asked.on("error", () => resolve(""));
    asked.end();
  });
}

async function tried(attempt, world) {
  const timer = new AbortController();
  const over = pause(CASE_MS, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`over ${CASE_MS} ms`);
  });
  try {
    await Promise.race([attempt(world), over]);
    return ["works", ""];
  } catch (error) {
    return ["failed", error?.stack ?? String(error)];
  } finally {
    timer.abort();
    over.catch(() => {});
  }
}

const [name, ...cases] = process.argv.slice(2);
const sdk = await import(name);
const used = async (box, use) => {
  try {
    await use(box);
  } finally {
    await box.kill();
  }
};
const own = async (options, use) =>
  used(await sdk.Sandbox.create({ timeoutMs: 120_000, ...options }), use);
const ownOf = async (template, use) =>
  used(await sdk.Sandbox.create(template, { timeoutMs: 120_000 }), use);

let box;
let broken;
try {
  box = await sdk.Sandbox.create({ timeoutMs: 600_000 });
} catch (error) {
  broken = error.stack;
}
for (const each of cases) {
  const attempt = CASES[name][each];
  const started = Date.now();
  const [outcome, detail] = broken ? ["failed", broken] : await tried(attempt, { sdk, box, own, ownOf });
  const seconds = (Date.now() - started) / 1000;
  process.stdout.write(`${JSON.stringify({ case: each, outcome, detail, seconds })}\n`);
}
await box?.kill();
process.exit(0);
