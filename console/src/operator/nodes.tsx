import type { JSX } from "preact";
import { useLoad, useRefresh } from "../hooks";
import { Choice, Loading, Page } from "../parts/common";
import { go, link } from "../router";
import { useApi } from "../session";
import { NodeTable } from "./node_table";
import type { NodeView } from "./views";

const EVERY_MS = 5_000;

export function Nodes({ query }: { query: URLSearchParams }): JSX.Element {
  const api = useApi();
  const removed = query.get("removed") === "true";
  const found = useLoad(
    (signal) => api.get<{ items: NodeView[] }>("/operator/v1/nodes", { removed }, signal),
    `nodes ${removed}`,
  );
  useRefresh(EVERY_MS, found);
  return (
    <Page
      title="Nodes"
      actions={
        <>
          <button type="button" onClick={found.reload}>
            Reload
          </button>
          <a class="button main" href={link("invitations")}>
            Invite a host
          </a>
        </>
      }
    >
      <div class="filters">
        <Choice
          label="Show"
          name="removed"
          value={String(removed)}
          options={[
            ["false", "nodes of the deployment"],
            ["true", "removed ones, too"],
          ]}
          changed={(value) => go(`${link("nodes")}${value === "true" ? "?removed=true" : ""}`)}
        />
      </div>
      <Loading of={found}>{({ items }) => <NodeTable of={items} />}</Loading>
    </Page>
  );
}
