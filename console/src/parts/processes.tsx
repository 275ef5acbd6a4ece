import type { JSX } from "preact";
import { lazy } from "./lazy";
import { path } from "../api";
import { useAction, useDrawing, useEvents, useEvery, useLoad } from "../hooks";
import { useRef } from "preact/hooks";
import { go, link } from "../router";
import { useSession } from "../session";
import { bytes, inline } from "../text";
import { Asking, Form, Input, Loading, Notice, Section, State, Table, Time } from "./common";
import { Gathered, Output } from "./output";

// Half of the console is the terminal: only those who open one load it.
const Terminal = lazy(async () => (await import("./terminal")).Terminal);
const REFRESH_MS = 3000;
const SIZE = { rows: 24, columns: 80 };

interface ProcessView {
  process: number;
  state: "running" | "ended";
  command: string[];
  terminal: boolean;
  started_at: string;
  exit_code: number | null;
  signal: string | null;
  output_bytes: number;
}

export function Processes(given: { sandbox: string; open: string | undefined }): JSX.Element {
  const { api, can } = useSession();
  const { sandbox } = given;
  const found = useLoad(
    (signal) => api.get<{ items: ProcessView[] }>(path`/v1/sandboxes/${sandbox}/processes`, {}, signal),
    sandbox,
  );
  useEvery(REFRESH_MS, found.reload);
  const starting = useAction(async (body: object) => {
    const made = await api.send<ProcessView>("POST", path`/v1/sandboxes/${sandbox}/processes`, body);
    found.reload();
    go(link("sandboxes", sandbox, "processes", made.process));
  });
  const killing = useAction(async (process: number) => {
    await api.send("DELETE", path`/v1/sandboxes/${sandbox}/processes/${process}`);
    found.reload();
  });
  const uses = can("sandbox:use");
  const open = found.data?.items.find((each) => String(each.process) === given.open);
  return (
    <>
      {open && (
        <Section title={`Process ${open.process}`}>
          {open.terminal && uses ? (
            <Terminal key={open.process} sandbox={sandbox} process={open.process} />
          ) : (
            <ProcessOutput key={open.process} sandbox={sandbox} process={open.process} />
          )}
        </Section>
      )}
      <Section
        title="Processes"
        actions={
          uses && (
            <button
              type="button"
              class="main"
              disabled={starting.busy}
              onClick={() => void starting.run({ command: ["bash"], terminal: SIZE })}
            >
              Open a terminal
            </button>
          )
        }
      >
        <Notice problem={starting.problem ?? killing.problem} />
        <Loading of={found}>
          {({ items }) => (
            <Table
              label="Processes"
              head={["Number", "State", "Command", "Started", "Output", "End", ""]}
              empty="Nothing runs in it."
              rows={items.map((each) => ({
                key: each.process,
                cells: [
                  <a href={link("sandboxes", sandbox, "processes", each.process)}>{each.process}</a>,
                  <State of={each.state} />,
                  <code>{inline(each.command.join(" ")).slice(0, 200)}</code>,
                  <Time at={each.started_at} />,
                  bytes(each.output_bytes),
                  each.signal ?? each.exit_code ?? "–",
                  uses && each.state === "running" && (
                    <Asking
                      label="Kill"
                      name={`Kill process ${each.process}`}
                      question={`Kill process ${each.process}?`}
                      act={() => killing.run(each.process)}
                    />
                  ),
                ],
              }))}
            />
          )}
        </Loading>
        {uses && (
          <Form
            label="Run a command"
            button="Run"
            busy={starting.busy}
            problem={null}
            sent={({ command }, form) =>
              void starting.run({ command }).then((done) => done && form.reset())
            }
          >
            <Input label="Command" name="command" required placeholder="ls -l /workspace" />
          </Form>
        )}
      </Section>
    </>
  );
}

interface OutputEvent {
  content?: string;
  encoding?: string;
  omitted_bytes?: number;
}

function ProcessOutput(given: { sandbox: string; process: number }): JSX.Element {
  const { api } = useSession();
  const output = useRef(new Gathered());
  const { turn, draw } = useDrawing();
  const { state, problem } = useEvents(
    api,
    path`/v1/sandboxes/${given.sandbox}/processes/${given.process}/output`,
    ({ event, data }) => {
      const told = JSON.parse(data) as OutputEvent;
      if (event === "gap") output.current.note(`\n[${told.omitted_bytes} bytes are no longer kept]\n`);
      if (event === "stdout" || event === "stderr") {
        output.current.write(event, told.content ?? "", told.encoding);
      }
      draw();
    },
    ({ event }) => event === "ended",
  );
  return (
    <>
      {state === "lost" && (
        <p class="notice" role="status">
          The connection was lost. Trying again …
        </p>
      )}
      <Notice problem={problem} />
      <Output of={output.current} label="Output" turn={turn} />
    </>
  );
}
