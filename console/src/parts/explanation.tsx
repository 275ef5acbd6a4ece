import type { JSX } from "preact";
import { useLoad } from "../hooks";
import { useSession } from "../session";
import { inline, seconds, words } from "../text";
import { Loading, Table, Time } from "./common";

interface Stage {
  stage: string;
  at: string;
  after_s: number | null;
  node: string | null;
  source: string | null;
  detail: string | null;
}

interface Told {
  state: string;
  stages: Stage[];
  omitted: number;
  wait: { detail: string } | null;
  end: { reason: string; means: string; advice: string } | null;
}

/** Why an execution or a sandbox waited, or how it ended. `turn` makes it load again. */
export function Explanation({ address, turn }: { address: string; turn: string }): JSX.Element {
  const { api } = useSession();
  const found = useLoad((signal) => api.get<Told>(address, {}, signal), `${address} ${turn}`);
  return (
    <Loading of={found}>
      {({ stages, wait, end, omitted }) => (
        <>
          {wait && <p>{inline(wait.detail)}</p>}
          {end && (
            <p>
              {inline(end.means)} {inline(end.advice)}
            </p>
          )}
          <Table
            label="Stages"
            head={["Stage", "At", "After", "Node", "Detail"]}
            empty="Nothing has happened yet."
            rows={stages.map((each, number) => ({
              key: number,
              cells: [
                words(each.stage),
                <Time at={each.at} />,
                seconds(each.after_s),
                each.node ? inline(each.node) : "–",
                inline(each.detail ?? (each.source ? `sandbox: ${each.source}` : "–")),
              ],
            }))}
          />
          {omitted > 0 && <p class="hint">{omitted} stages are left out.</p>}
        </>
      )}
    </Loading>
  );
}
