import type { JSX } from "preact";
import { State, Table } from "../parts/common";
import { link } from "../router";
import { between, bytes, inline } from "../text";
import type { NodeView } from "./views";

const MIB = 2 ** 20;

export function NodeTable({ of }: { of: NodeView[] }): JSX.Element {
  return (
    <Table
      label="Nodes"
      head={["Node", "State", "Runs", "Sandboxes", "Memory free", "Seen"]}
      empty="There are no nodes: “runner worker” makes a host one."
      rows={of.map((each) => ({
        key: each.node,
        cells: [
          <a href={link("nodes", each.node)}>{inline(each.node)}</a>,
          <NodeState of={each} />,
          `${each.running} of ${each.slots}`,
          `${each.living} of ${each.sandboxes}`,
          `${bytes(each.free_mb * MIB)} of ${bytes(each.memory_mb * MIB)}`,
          `${between(each.seen_at, null)} ago`,
        ],
      }))}
    />
  );
}

export function NodeState({ of }: { of: NodeView }): JSX.Element {
  return (
    <>
      <State of={of.state} />
      {of.fault && (
        <>
          {" "}
          <State of="broken" />
        </>
      )}
    </>
  );
}
