// Reads what a context of JavaScript is told, and stops code that does not return.

import { createReadStream } from "node:fs";
import { Session } from "node:inspector";
import { createInterface } from "node:readline";
import { parentPort, workerData as running } from "node:worker_threads";

const CONTROL_IN = 3;
const PATIENCE_MS = 100;

let greeted = false;

const lines = createInterface({ input: createReadStream("", { fd: CONTROL_IN }) });
lines.on("line", (line) => {
  if (!greeted) {
    greeted = true;
    parentPort.postMessage({ token: line });
    return;
  }
  const said = JSON.parse(line);
  parentPort.postMessage(said);
  if (said.interrupt !== undefined) {
    // Code that awaits something is interrupted by the message.
    setTimeout(() => {
      // The lower 32 bits are all that is shared.
      if (Atomics.load(running, 0) === (said.interrupt | 0)) stop();
    }, PATIENCE_MS);
  }
});
lines.on("close", () => process.exit(0));

/** Stop what the main thread executes. A session that stayed open would keep it from exiting. */
function stop() {
  const session = new Session();
  session.connectToMainThread();
  session.post("Runtime.terminateExecution", () => session.disconnect());
}
