// Code that calls a tool, as LibreChat's server has it run: with the tool of @librechat/agents. Prints
// what the model would read, and what the tool was called with.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
process.env.LIBRECHAT_CODE_BASEURL = process.argv[2];
const { createProgrammaticToolCallingTool } = require("@librechat/agents");

const asked = [];
const weather = {
  name: "get-weather",
  invoke: async ({ city }) => {
    asked.push(city);
    return city === "Oslo" ? "sunny" : "rainy";
  },
};
const toolDefs = [
  {
    name: weather.name,
    description: "The weather in a city",
    parameters: { type: "object", properties: { city: { type: "string" } } },
    allowed_callers: ["code_execution"],
  },
];
const code = `
a, b = await asyncio.gather(get_weather(city="Oslo"), get_weather(city="Bergen"))
print(f"{a} in Oslo, {b} in Bergen")
`;
const tool = createProgrammaticToolCallingTool({});
const answer = await tool.invoke({
  name: tool.name, type: "tool_call", id: "1", args: { code },
  toolMap: new Map([[weather.name, weather]]), toolDefs,
});
console.log(JSON.stringify({ content: answer.content, asked }));
