// How the deployment is and what it does, again every few seconds: what `runner top` shows, and more.
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { useLoad, useRefresh } from "../hooks";
import { Facts, Loading, Page, Section, State, Table } from "../parts/common";
import { Plot } from "../parts/plot";
import { link } from "../router";
import { useApi } from "../session";
import { count, inline, seconds } from "../text";
import { NodeTable } from "./node_table";
import type { Health, Load, TenantLoad } from "./views";

const EVERY_MS = 3_000;
/** Ten minutes, while the page is open. */
const MOST_SAMPLES = 200;
const PARTS: Record<string, string> = { postgres: "PostgreSQL", redis: "Redis", rights: "Rights" };

interface Now {
  at: Date;
  health: Health;
  load: Load;
}

export function Overview(): JSX.Element {
  const api = useApi();
  const [paused, setPaused] = useState(false);
  const [samples, setSamples] = useState<Now[]>([]);
  const found = useLoad<Now>(async (signal) => {
    const [health, load] = await Promise.all([
      api.get<Health>("/operator/v1/health", {}, signal),
      api.get<Load>("/operator/v1/load", {}, signal),
    ]);
    return { at: new Date(), health, load };
  }, "now");
  useRefresh(EVERY_MS, found, !paused);
  const { data } = found;
  useEffect(() => {
    if (data) setSamples((before) => [...before, data].slice(-MOST_SAMPLES));
  }, [data]);
  return (
    <Page
      title="Overview"
      actions={
        <>
          {data && <span class="quiet">As of {data.at.toLocaleTimeString("sv")}</span>}
          <button type="button" aria-pressed={paused} onClick={() => setPaused(!paused)}>
            Pause
          </button>
        </>
      }
    >
      <Loading of={found}>
        {({ health, load }) => (
          <>
            <Section title="Health">
              <Attention of={attention(health, load)} />
              <Figures of={health} />
            </Section>
            <Section title="Load">
              <Plots of={samples} />
            </Section>
            <Section title="Queue and fairness">
              <Queue of={load} />
            </Section>
            <Section title="Nodes">
              <NodeTable of={load.nodes} />
            </Section>
          </>
        )}
      </Loading>
    </Page>
  );
}

function Attention({ of }: { of: string[] }): JSX.Element {
  if (!of.length) {
    return (
      <p class="notice good" role="status">
        Nothing needs you now.
      </p>
    );
  }
  return (
    <div class="notice bad" role="status">
      <ul>
        {of.map((each) => (
          <li key={each}>{each}</li>
        ))}
      </ul>
    </div>
  );
}

/** What somebody should look at: parts that are away, nodes that take nothing, work that is late. */
function attention(health: Health, load: Load): string[] {
  const found = Object.entries(health.readiness.parts)
    .filter(([, state]) => state !== "ok")
    .map(([name]) => `${PARTS[name] ?? name} does not answer.`);
  if (!load.nodes.some((each) => each.state === "ready" && !each.fault)) {
    found.push("No node takes executions and sandboxes now.");
  }
  for (const each of load.nodes) {
    if (each.state === "away") found.push(`The node ${inline(each.node)} is away.`);
    if (each.fault) found.push(`The node ${inline(each.node)} is broken: ${inline(each.fault)}`);
  }
  if (health.executions_overdue) {
    found.push(`Executions whose node has not renewed their lease in time: ${health.executions_overdue}.`);
  }
  if (health.sandboxes_overdue) {
    found.push(`Sandboxes whose node has not renewed their lease in time: ${health.sandboxes_overdue}.`);
  }
  return found;
}

function Figures({ of }: { of: Health }): JSX.Element {
  const undelivered = Object.entries(of.audit_undelivered_s).filter(([, age]) => age > 0);
  return (
    <Facts
      of={[
        ...Object.entries(of.readiness.parts).map(
          ([name, state]): [string, JSX.Element] => [PARTS[name] ?? name, <State of={state} />],
        ),
        ["First in the queue has waited", seconds(of.queue_oldest_s)],
        ["Tenants that wait", count(of.queue_tenants)],
        ["Living sandboxes", count(sum(Object.values(of.sandboxes)))],
        ["Oldest audit record without a seal", seconds(of.audit_unsealed_s)],
        [
          "Oldest audit record not forwarded",
          undelivered.map(([sink, age]) => `${sink}: ${seconds(age)}`).join(", ") || "none",
        ],
      ]}
    />
  );
}

function Plots({ of }: { of: Now[] }): JSX.Element {
  const series = (read: (now: Now) => number) =>
    of.map((each) => ({ label: each.at.toLocaleTimeString("sv"), value: read(each) }));
  const ended = (now: Now): number => sum(now.load.tenants.map((each) => each.ended_last_minute));
  return (
    <div class="plots">
      <Plot title="Executions that wait" kind="line" shown={count} points={series(waiting)} />
      <Plot title="Executions that run" kind="line" shown={count} points={series(running)} />
      <Plot title="Ended in the last minute" kind="line" shown={count} points={series(ended)} />
    </div>
  );
}

function waiting({ health }: Now): number {
  return health.executions["queued"] ?? 0;
}

function running({ health }: Now): number {
  return sum(Object.values(health.executions)) - (health.executions["queued"] ?? 0);
}

function Queue({ of }: { of: Load }): JSX.Element {
  const all = sum(of.tenants.map((each) => each.active));
  return (
    <>
      <p class="hint">
        A free slot goes to the waiting tenant that runs least for its weight, unless it already runs
        as many as it may.
      </p>
      <Table
        label="Queue by tenant"
        head={["Tenant", "Tier", "Waits", "Runs", "Share", "Ended in a minute", "Sandboxes"]}
        empty="No tenant has work."
        rows={of.tenants.map((each) => ({ key: each.tenant, cells: row(each, all) }))}
      />
      {of.more && <p class="quiet">Further tenants have work: “runner top” lists 200.</p>}
    </>
  );
}

function row(each: TenantLoad, all: number): (JSX.Element | string | number)[] {
  return [
    <a href={`${link("tenants")}?name=${encodeURIComponent(each.tenant)}`}>{inline(each.tenant)}</a>,
    <>
      {each.tier}
      {each.suspended && (
        <>
          {" "}
          <State of="suspended" />
        </>
      )}
    </>,
    each.waiting,
    `${each.active} of ${each.concurrent}`,
    all ? `${Math.round((100 * each.active) / all)} %` : "–",
    each.ended_last_minute,
    each.living,
  ];
}

function sum(values: number[]): number {
  return values.reduce((before, each) => before + each, 0);
}
