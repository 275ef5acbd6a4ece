import type { JSX } from "preact";
import { path } from "../api";
import { useLoad } from "../hooks";
import { useSession } from "../session";
import { bytes, count } from "../text";
import { Loading } from "./common";
import { Plot } from "./plot";

interface Sample {
  at: string;
  cpu_s: number | null;
  memory_bytes: number | null;
  disk_bytes: number | null;
  processes: number;
  egress_bytes_up: number;
  egress_bytes_down: number;
}

export function Metrics({ sandbox }: { sandbox: string }): JSX.Element {
  const { api } = useSession();
  const found = useLoad(
    (signal) =>
      api.get<{ every_s: number; items: Sample[] }>(
        path`/v1/sandboxes/${sandbox}/metrics/series`,
        {},
        signal,
      ),
    sandbox,
  );
  return (
    <Loading of={found}>
      {({ items }) => {
        if (!items.length) return <p class="quiet">Nothing was measured yet.</p>;
        const series = (read: (sample: Sample) => number | null) =>
          items.map((each) => ({ label: new Date(each.at).toLocaleTimeString("sv"), value: read(each) }));
        return (
          <div class="plots">
            <Plot title="Memory" kind="line" shown={bytes} points={series((each) => each.memory_bytes)} />
            <Plot
              title="Processors"
              kind="line"
              shown={(value) => `${count(value)} CPU`}
              points={items.slice(1).map((each, at) => ({
                label: new Date(each.at).toLocaleTimeString("sv"),
                value: rate(items[at] ?? each, each),
              }))}
            />
            <Plot title="Disk" kind="line" shown={bytes} points={series((each) => each.disk_bytes)} />
            <Plot title="Processes" kind="line" shown={count} points={series((each) => each.processes)} />
          </div>
        );
      }}
    </Loading>
  );
}

/** Processors in use between two samples, of which each has the sum up to then. */
function rate(before: Sample, after: Sample): number | null {
  const took = (Date.parse(after.at) - Date.parse(before.at)) / 1000;
  if (before.cpu_s === null || after.cpu_s === null || took <= 0) return null;
  return Math.max(0, after.cpu_s - before.cpu_s) / took;
}
