// What a tenant used, and what is left of its quotas.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { useLoad } from "../hooks";
import { useApi } from "../session";
import { bytes, count, seconds } from "../text";
import type { UsageReport, Used } from "../views";
import { Choice, Facts, Loading, Section } from "./common";
import { Plot } from "./plot";
import { Quotas } from "./quotas";

const DAY_MS = 86_400_000;

export function UsageReported({ address }: { address: string }): JSX.Element {
  const api = useApi();
  const [days, setDays] = useState("30");
  const from = new Date(Date.now() - (Number(days) - 1) * DAY_MS).toISOString().slice(0, 10);
  const found = useLoad(
    (signal) => api.get<UsageReport>(address, { from }, signal),
    `${address} ${from}`,
  );
  return (
    <Loading of={found}>
      {(report) => {
        const series = (read: (used: Used) => number) =>
          report.days.map((each) => ({ label: each.day, value: read(each.used) }));
        const { total } = report;
        return (
          <>
            <Section title="Quotas">
              <Facts
                of={[
                  ["Tier", report.tier],
                  ["Largest size", report.max_size],
                ]}
              />
              <Quotas of={report.quotas} />
            </Section>
            <Section title="By day">
              <div class="filters">
                <Choice
                  label="Days"
                  name="days"
                  value={days}
                  options={["7", "30", "90"]}
                  changed={setDays}
                />
              </div>
              <div class="plots">
                <Plot title="Executions" kind="bars" shown={count} points={series((used) => used.attempts)} />
                <Plot
                  title="Processor time"
                  kind="bars"
                  shown={seconds}
                  points={series((used) => used.cpu_s)}
                />
                <Plot
                  title="Sandboxes' time"
                  kind="bars"
                  shown={seconds}
                  points={series((used) => used.sandbox_wall_s)}
                />
                <Plot
                  title="Egress"
                  kind="bars"
                  shown={bytes}
                  points={series((used) => used.egress_bytes_up + used.egress_bytes_down)}
                />
                <Plot
                  title="Ports of sandboxes"
                  kind="bars"
                  shown={bytes}
                  points={series((used) => used.port_bytes_in + used.port_bytes_out)}
                />
              </div>
              <Facts
                of={[
                  ["Executions", count(total.attempts)],
                  ["Processor time", seconds(total.cpu_s)],
                  ["Memory", `${count(total.memory_gib_s)} GiB·s`],
                  ["Artifacts", bytes(total.artifact_bytes)],
                ]}
              />
            </Section>
          </>
        );
      }}
    </Loading>
  );
}
