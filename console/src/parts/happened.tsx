// The events of a sandbox, and what it tried to reach.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { path, type ServerEvent } from "../api";
import { useEvents } from "../hooks";
import { useSession } from "../session";
import { inline, words } from "../text";
import type { Decision } from "../views";
import { Notice, Section, Table, Time } from "./common";
import { Decisions } from "./decisions";

const MOST = 500;

interface Told {
  id: string;
  event: string;
  at: string;
  facts: Record<string, unknown>;
}

export function Happened(given: { sandbox: string; policy: string | null }): JSX.Element {
  const { api } = useSession();
  const [told, setTold] = useState<Told[]>([]);
  const { state, problem } = useEvents(
    api,
    path`/v1/sandboxes/${given.sandbox}/events`,
    (event) => setTold((before) => [...before, read(event)].slice(-MOST)),
    (event) => event.event === "life" && read(event).facts["state"] === "ended",
  );
  const decisions = told
    .filter((each) => each.event === "egress")
    .map((each) => each.facts as unknown as Decision);
  return (
    <>
      {state === "lost" && (
        <p class="notice" role="status">
          The connection was lost. Trying again …
        </p>
      )}
      <Notice problem={problem} />
      <Section title="Egress">
        <Decisions of={decisions} policy={given.policy} />
      </Section>
      <Section title="Events">
        <Table
          label="Events"
          head={["At", "Event", "Facts"]}
          empty="Nothing has happened yet."
          rows={told
            .filter((each) => each.event !== "egress")
            .reverse()
            .map((each) => ({
              key: each.id,
              cells: [
                <Time at={each.at} />,
                words(each.event),
                <code>{inline(JSON.stringify(each.facts)).slice(0, 500)}</code>,
              ],
            }))}
        />
      </Section>
    </>
  );
}

function read({ id, event, data }: ServerEvent): Told {
  const { at, ...facts } = JSON.parse(data) as { at: string } & Record<string, unknown>;
  return { id, event, at, facts };
}
