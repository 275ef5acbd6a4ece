import type { JSX } from "preact";
import { path } from "../api";
import { useAction, useLoad, useRefresh } from "../hooks";
import { Asking, Facts, Loading, Notice, Page, Section, State, Table, Time } from "../parts/common";
import { go, link } from "../router";
import { useApi } from "../session";
import { bytes, inline, words } from "../text";
import { NodeState } from "./node_table";
import type { Held, NodeContents, NodeView } from "./views";

const EVERY_MS = 3_000;
const MIB = 2 ** 20;

export function Node({ name }: { name: string }): JSX.Element {
  const api = useApi();
  const address = path`/operator/v1/nodes/${name}`;
  const found = useLoad((signal) => api.get<NodeContents>(address, {}, signal), name);
  useRefresh(EVERY_MS, found);
  const ordering = useAction(async (order: "drain" | "resume") => {
    await api.send("POST", `${address}/${order}`);
    found.reload();
  });
  const removing = useAction(async () => {
    await api.send("DELETE", address);
    go(link("nodes"));
  });
  const node = found.data?.node;
  const isRemoved = node?.state === "removed";
  return (
    <Page
      title={`Node ${inline(name)}`}
      actions={
        node && (
          <>
            {!node.draining && !isRemoved && (
              <Asking
                label="Drain"
                question={`Drain ${inline(name)}? It takes nothing new, and what it holds ends or moves.`}
                act={() => ordering.run("drain")}
              />
            )}
            {(node.draining || isRemoved) && (
              <button type="button" disabled={ordering.busy} onClick={() => void ordering.run("resume")}>
                Resume
              </button>
            )}
            {!isRemoved && (node.draining || node.state === "away") && (
              <Asking
                label="Remove"
                question={`Remove ${inline(name)}? What it has left ends when its leases do.`}
                act={removing.run}
              />
            )}
          </>
        )
      }
    >
      <Notice problem={ordering.problem ?? removing.problem} />
      <Loading of={found}>
        {(contents) => (
          <>
            <Section title="State">
              {contents.node.fault && (
                <p class="notice bad" role="status">
                  It cannot start sandboxes now: {inline(contents.node.fault)}
                </p>
              )}
              <NodeFacts of={contents.node} />
            </Section>
            <Section title="What it holds">
              <HeldTable of={contents.held} />
              {contents.more && <p class="quiet">And more than these {contents.held.length}.</p>}
            </Section>
          </>
        )}
      </Loading>
    </Page>
  );
}

function NodeFacts({ of }: { of: NodeView }): JSX.Element {
  return (
    <Facts
      of={[
        ["State", <NodeState of={of} />],
        ["Takes new work", of.draining ? "no: it drains" : of.state === "ready" ? "yes" : "no"],
        ["Executions", `${of.running} of ${of.slots}`],
        ["Sandboxes", `${of.living} of ${of.sandboxes}`],
        ["Memory free", `${bytes(of.free_mb * MIB)} of ${bytes(of.memory_mb * MIB)}`],
        ["Processors", of.cpus],
        ["Version", inline(of.version)],
        ["Zone", of.zone ? inline(of.zone) : "–"],
        ["Door", <code>{inline(of.door)}</code>],
        ["Isolation", of.isolations.join(", ")],
        ["Images", inline(of.images.join(", "))],
        ["Templates held", of.templates.length],
        ["Joined", <Time at={of.joined_at} />],
        ["Runs since", <Time at={of.started_at} />],
        ["Seen", <Time at={of.seen_at} />],
      ]}
    />
  );
}

function HeldTable({ of }: { of: Held[] }): JSX.Element {
  return (
    <Table
      label="What it holds"
      head={["Kind", "Id", "State", "Tenant", "If short of memory", "Since"]}
      empty="It holds no execution and no sandbox."
      rows={of.map((each) => ({
        key: each.id,
        cells: [
          each.kind,
          <code>{each.id}</code>,
          <State of={each.state} />,
          <a href={link("tenants", each.tenant_id)}>
            <code>{each.tenant_id}</code>
          </a>,
          each.on_shortage ? words(each.on_shortage) : "–",
          <Time at={each.since} />,
        ],
      }))}
    />
  );
}
