import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import { path, segments } from "../api";
import { useAction, useDrawing, useEvents, useLoad } from "../hooks";
import { Artifacts } from "../parts/artifacts";
import { Asking, Facts, Loading, Notice, Page, Section, State, Time } from "../parts/common";
import { Decisions } from "../parts/decisions";
import { Gathered, Output } from "../parts/output";
import { Receipt } from "../parts/receipt";
import { Explanation } from "../parts/explanation";
import { useSession } from "../session";
import { between, bytes, inline, seconds, short } from "../text";
import { ENDED, type Decision, type ExecutionEvent, type ExecutionView } from "../views";
import { Labels } from "./executions";

/** A program may try to connect as often as it likes; the newest are shown. */
const MOST_DECISIONS = 500;

export function Execution({ id }: { id: string }): JSX.Element {
  const { api, can } = useSession();
  const found = useLoad(
    (signal) => api.get<ExecutionView>(path`/v1/executions/${id}`, {}, signal),
    id,
  );
  const cancelling = useAction(() => api.send("POST", path`/v1/executions/${id}/cancel`));
  return (
    <Page
      title={`Execution ${short(id)}`}
      actions={
        <>
          <button type="button" onClick={found.reload}>
            Reload
          </button>
          {found.data && !ENDED.has(found.data.state) && can("execution:cancel") && (
            <Asking
              label="Cancel"
              question="Cancel this execution? It ends soon, and its result says that it was cancelled."
              act={() => cancelling.run()}
            />
          )}
        </>
      }
    >
      <Notice problem={cancelling.problem} />
      <Loading of={found}>
        {(execution) => <Details execution={execution} changed={found.reload} />}
      </Loading>
    </Page>
  );
}

function Details(given: { execution: ExecutionView; changed: () => void }): JSX.Element {
  const { execution } = given;
  const { can } = useSession();
  const { id, result } = execution;
  const ended = ENDED.has(execution.state);
  const live = useLive(id, given.changed);
  const files = can("artifact:read") ? (result?.artifacts ?? []) : [];
  return (
    <>
      <Section title="Result">
        <Facts
          of={[
            ["State", <State of={execution.state} />],
            ["Why", result ? inline(result.detail) : waiting(execution)],
            ["Exit code", result?.exit_code ?? result?.signal ?? "–"],
            ["Took", between(execution.started_at, execution.ended_at)],
            ["Processor time", seconds(result?.usage.cpu_s)],
            ["Peak memory", bytes(result?.usage.memory_peak_bytes)],
            ["Limits hit", result?.limits_hit.join(", ") || "none"],
            ["Id", <code>{id}</code>],
            ["Image", inline(execution.image)],
            ["Size", inline(execution.size)],
            ["Isolation", execution.isolation],
            ["Project", execution.project ? inline(execution.project) : "–"],
            ["Labels", <Labels of={execution.metadata} />],
            ["Created", <Time at={execution.created_at} />],
            ["Ended", <Time at={execution.ended_at} />],
            ["Attempt", execution.attempt],
          ]}
        />
      </Section>
      <Section title="Output">
        {live.state === "lost" && !ended && (
          <p class="notice" role="status">
            The connection was lost. Trying again …
          </p>
        )}
        <Notice problem={live.problem} />
        <Output of={live.output} label="Output" turn={live.turn} />
      </Section>
      {(live.decisions.length > 0 || execution.egress.length > 0) && (
        <Section title="Egress">
          <Decisions of={live.decisions} policy={execution.egress_policy} />
        </Section>
      )}
      {result && (
        <Section title="Artifacts">
          <Artifacts
            of={files}
            refused={result.artifacts_refused}
            address={(name) => path`/v1/executions/${id}/artifacts/` + segments(name)}
          />
        </Section>
      )}
      <Section title="What happened">
        <Explanation address={path`/v1/executions/${id}/explanation`} turn={execution.state} />
      </Section>
      {ended && (
        <Section title="Receipt">
          <Receipt address={path`/v1/executions/${id}/receipt`} name={`receipt-${id}.json`} />
        </Section>
      )}
    </>
  );
}

function waiting(execution: ExecutionView): string {
  if (execution.queue_position == null) return "–";
  const start = execution.estimated_start_s;
  const about = start == null ? "" : `, starts in about ${seconds(start)}`;
  return `${execution.queue_position} before it${about}`;
}

function useLive(id: string, changed: () => void): {
  output: Gathered;
  turn: number;
  decisions: Decision[];
  state: string;
  problem: ReturnType<typeof useEvents>["problem"];
} {
  const { api } = useSession();
  const output = useRef(new Gathered());
  const decisions = useRef<Decision[]>([]);
  const { turn, draw } = useDrawing();
  const following = useEvents(
    api,
    path`/v1/executions/${id}/events`,
    ({ event, data }) => {
      const told = JSON.parse(data) as ExecutionEvent;
      if (told.omitted_bytes) output.current.note(`\n[${told.omitted_bytes} bytes left out]\n`);
      if ((event === "stdout" || event === "stderr") && told.content !== undefined) {
        output.current.write(event, told.content, told.encoding);
      }
      if (told.egress) {
        decisions.current.push(told.egress);
        if (decisions.current.length > MOST_DECISIONS) decisions.current.shift();
      }
      if (told.state && told.state !== "queued") changed();
      draw();
    },
    ({ event, data }) =>
      event === "state" && ENDED.has((JSON.parse(data) as ExecutionEvent).state ?? ""),
  );
  return { output: output.current, turn, decisions: decisions.current, ...following };
}
