// One message of a chat, as LibreChat's server sends it: a file goes up, Python and then bash work
// on it with the tools of @librechat/agents, and what they leave is downloaded. Prints what was seen.
import { createRequire } from "node:module";
import { Readable } from "node:stream";

const require = createRequire(import.meta.url);
const base = process.argv[2];
process.env.LIBRECHAT_CODE_BASEURL = base;
const axios = require("axios");
const FormData = require("form-data");
const { createBashExecutionTool, createCodeExecutionTool } = require("@librechat/agents");

const whose = { kind: "user", id: "somebody", resource_id: "somebody" };
const query = "?kind=user&id=somebody";

const form = new FormData();
form.append("kind", whose.kind);
form.append("id", whose.id);
// A stream, whose length nobody knows before its end.
form.append("file", Readable.from(["a,b\n1,2\n"]), { filename: "in.csv" });
const uploaded = (await axios.post(`${base}/upload`, form, { headers: form.getHeaders() })).data;
const sent = {
  ...whose,
  id: uploaded.files[0].fileId,
  name: uploaded.files[0].filename,
  storage_session_id: uploaded.storage_session_id,
};
const object = `${base}/sessions/${sent.storage_session_id}/objects/${sent.id}${query}`;
const { lastModified } = (await axios.get(object)).data;

async function call(tool, args, files) {
  const answer = await tool.invoke({
    name: tool.name, type: "tool_call", id: "1", args, _injected_files: files,
  });
  return { content: answer.content, ...answer.artifact };
}

const code = "rows = open('/mnt/data/in.csv').read()\nopen('/mnt/data/out.csv', 'w').write(rows * 2)";
const python = await call(createCodeExecutionTool({}), { lang: "py", code }, [sent]);
const left = python.files.map((each) => ({ ...whose, ...each }));
const bash = await call(createBashExecutionTool({}), { command: "wc -l /mnt/data/*.csv" }, left);
const [{ session_id, id }] = python.files;
const content = (await axios.get(`${base}/download/${session_id}/${id}${query}`)).data;
console.log(JSON.stringify({ uploaded, lastModified, python, bash, content }));
