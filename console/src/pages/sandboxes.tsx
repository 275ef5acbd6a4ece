import type { JSX } from "preact";
import { useAction } from "../hooks";
import { Choice, Form, Input, Page, State, Table, Time } from "../parts/common";
import { Pages, usePages } from "../parts/pages";
import { go, link } from "../router";
import { useSession } from "../session";
import { inline, short } from "../text";
import type { SandboxView } from "../views";
import { Labels } from "./executions";

const LIVES = ["starting", "running", "pausing", "paused", "resuming", "stopping", "ended"];

export function Sandboxes({ query }: { query: URLSearchParams }): JSX.Element {
  const { can } = useSession();
  const state = query.get("state") ?? "";
  const found = usePages<SandboxView>("/v1/sandboxes", { state });
  return (
    <Page
      title="Sandboxes"
      actions={
        <>
          <button type="button" onClick={found.reload}>
            Reload
          </button>
          {can("sandbox:create") && (
            <a class="button main" href={link("sandboxes", "new")}>
              New sandbox
            </a>
          )}
        </>
      }
    >
      <div class="filters">
        <Choice
          label="State"
          name="state"
          value={state}
          options={[["", "all"], ...LIVES]}
          changed={(value) => go(`${link("sandboxes")}${value ? `?state=${value}` : ""}`)}
        />
      </div>
      <Pages of={found} label="sandboxes">
        {(items) => <SandboxTable items={items} />}
      </Pages>
    </Page>
  );
}

export function SandboxTable({ items }: { items: SandboxView[] }): JSX.Element {
  return (
    <Table
      label="Sandboxes"
      head={["Sandbox", "State", "Image", "Size", "Isolation", "Labels", "Created", "Ends"]}
      empty="There are no sandboxes here."
      rows={items.map((each) => ({
        key: each.id,
        cells: [
          <a href={link("sandboxes", each.id)} title={each.id}>
            <code>{short(each.id)}</code>
          </a>,
          <State of={each.state} />,
          inline(each.image),
          inline(each.size),
          each.isolation,
          <Labels of={each.metadata} />,
          <Time at={each.created_at} />,
          <Time at={each.ended_at ?? each.expires_at} />,
        ],
      }))}
    />
  );
}

export function NewSandbox(): JSX.Element {
  const { api } = useSession();
  const making = useAction(async (values: Record<string, string>) => {
    const { image, size, timeout, policy } = values;
    const made = await api.send<SandboxView>("POST", "/v1/sandboxes", {
      ...(image ? { image } : {}),
      ...(size ? { size } : {}),
      ...(timeout ? { timeout_s: Number(timeout) } : {}),
      ...(policy ? { egress_policy: policy } : {}),
    });
    go(link("sandboxes", made.id));
  });
  return (
    <Page title="New sandbox">
      <section class="card">
        <Form
          label="New sandbox"
          button="Make it"
          busy={making.busy}
          problem={making.problem}
          sent={(values) => void making.run(values)}
        >
          <Input label="Image or template" name="image" placeholder="the deployment's first" />
          <Input label="Size" name="size" placeholder="small" />
          <Input label="Seconds to live" name="timeout" type="number" min={1} placeholder="300" />
          <Input label="Egress policy" name="policy" placeholder="none: no network" />
        </Form>
      </section>
    </Page>
  );
}
