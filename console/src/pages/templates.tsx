import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { path } from "../api";
import { useAction, useLoad } from "../hooks";
import { Asking, Loading, Notice, Page, Section, State, Table, Time } from "../parts/common";
import { Pages, usePages } from "../parts/pages";
import { useSession } from "../session";
import { bytes, inline, plain } from "../text";

interface Template {
  id: string;
  name: string;
  tag: string;
  image: string;
  state: string;
  detail: string | null;
  base: string;
  size_bytes: number | null;
  public: boolean;
  created_at: string;
}

/** Entries of a log that the API gives at once. */
const ENTRIES = 1000;

export function Templates(): JSX.Element {
  const { api, can } = useSession();
  const [open, setOpen] = useState<Template | null>(null);
  const found = usePages<Template>("/v1/templates", {});
  const removing = useAction(async (id: string) => {
    await api.send("DELETE", path`/v1/templates/${id}`);
    found.reload();
  });
  return (
    <Page title="Templates">
      <p class="quiet">
        What sandboxes are made from. Build one with <code>runner templates build</code>, the SDK or the API.
      </p>
      <Section title="All templates">
        <Notice problem={removing.problem} />
        <Pages of={found} label="templates">
          {(items) => (
            <Table
              label="Templates"
              head={["Image", "State", "Base", "Size", "Created", "Detail", ""]}
              empty="There are no templates."
              rows={items.map((each) => ({
                key: each.id,
                cells: [
                  <code>{inline(each.image)}</code>,
                  <State of={each.state} />,
                  <code>{inline(each.base)}</code>,
                  bytes(each.size_bytes),
                  <Time at={each.created_at} />,
                  each.detail ? inline(each.detail) : "–",
                  <span class="actions">
                    <button
                      type="button"
                      aria-label={`Log of ${inline(each.image)}`}
                      onClick={() => setOpen(each)}
                    >
                      Log
                    </button>
                    {can("template:delete") && !each.public && (
                      <Asking
                        label="Remove"
                        name={`Remove ${inline(each.image)}`}
                        question={`Remove the template ${inline(each.image)}?`}
                        act={() => removing.run(each.id)}
                      />
                    )}
                  </span>,
                ],
              }))}
            />
          )}
        </Pages>
      </Section>
      {open && (
        <Section title={`Log of ${inline(open.image)}`}>
          <Log key={open.id} id={open.id} />
        </Section>
      )}
    </Page>
  );
}

function Log({ id }: { id: string }): JSX.Element {
  const { api } = useSession();
  const found = useLoad(async (signal) => {
    const items: { seq: number; text: string }[] = [];
    for (;;) {
      const after = items[items.length - 1]?.seq ?? 0;
      const page = await api.get<{ items: typeof items }>(
        path`/v1/templates/${id}/logs`,
        { after, limit: ENTRIES },
        signal,
      );
      items.push(...page.items);
      if (page.items.length < ENTRIES) return { items };
    }
  }, id);
  return (
    <Loading of={found}>
      {({ items }) => (
        <pre class="output" tabIndex={0} aria-label="Log">
          {items.map((each) => plain(each.text)).join("") || "Nothing was logged."}
        </pre>
      )}
    </Loading>
  );
}
