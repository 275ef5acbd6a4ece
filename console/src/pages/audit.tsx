import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { withQuery } from "../api";
import { useAction } from "../hooks";
import { Choice, Facts, Form, Input, Notice, Page, Section, State, Table, Time } from "../parts/common";
import { Pages, usePages } from "../parts/pages";
import { go, link } from "../router";
import { useApi } from "../session";
import { count, inline } from "../text";

interface Entry {
  seq: number;
  hash: string;
  record: Record<string, unknown>;
}

interface Verdict {
  valid: boolean;
  records: number;
  head: string;
  fault: string | null;
  checkpoint: { seq: number; at: string; key: string } | null;
}

const FILTERS = ["action", "actor", "outcome", "resource_id"] as const;

/** The log at `address`: a tenant's, or the deployment's own. */
export function Audit(given: {
  address: string;
  exports: boolean;
  query: URLSearchParams;
}): JSX.Element {
  const { address, query } = given;
  const [open, setOpen] = useState<Entry | null>(null);
  const wanted: Record<string, string> = {};
  for (const name of FILTERS) {
    const value = query.get(name);
    if (value) wanted[name] = value;
  }
  const found = usePages<Entry>(address, { ...wanted, order: "newest", limit: 50 });
  const search = (values: Record<string, string>): void => {
    const chosen = Object.entries(values).filter(([, value]) => value);
    go(`${link("audit")}${chosen.length ? `?${new URLSearchParams(chosen)}` : ""}`);
  };
  return (
    <Page
      title="Audit log"
      actions={
        <>
          <button type="button" onClick={found.reload}>
            Reload
          </button>
          {given.exports && (
            <a class="button" href={withQuery(`${address}/export`, wanted)} download="">
              Export {Object.keys(wanted).length ? "what was found" : "all"}
            </a>
          )}
        </>
      }
    >
      <Section title="State of the chain">
        <Chain address={address} />
      </Section>
      <Section title="Records">
        <Form label="Search" button="Search" busy={false} problem={null} sent={search}>
          <div class="filters">
            <Input label="Action" name="action" defaultValue={wanted["action"] ?? ""} placeholder="execution:submit" />
            <Input label="Actor" name="actor" defaultValue={wanted["actor"] ?? ""} placeholder="user:…" />
            <Choice
              label="Outcome"
              name="outcome"
              first={wanted["outcome"] ?? ""}
              options={[["", "all"], "success", "failure", "denied"]}
            />
            <Input label="About (id)" name="resource_id" defaultValue={wanted["resource_id"] ?? ""} />
          </div>
        </Form>
        <Pages of={found} label="records">
          {(items) => (
            <Table
              label="Records"
              head={["Number", "At", "Action", "Outcome", "Actor", "About", ""]}
              empty="No record is like this."
              rows={items.map((each) => ({
                key: each.seq,
                cells: [
                  each.seq,
                  <Time at={text(each, "at")} />,
                  <code>{inline(text(each, "action"))}</code>,
                  <State of={text(each, "outcome")} />,
                  inline(text(each, "actor")),
                  <code>{inline(text(each, "resource_id") || text(each, "resource_type") || "–")}</code>,
                  <button
                    type="button"
                    aria-label={`Show record ${each.seq}`}
                    onClick={() => setOpen(each)}
                  >
                    Show
                  </button>,
                ],
              }))}
            />
          )}
        </Pages>
      </Section>
      {open && (
        <Section title={`Record ${open.seq}`}>
          <p class="hint">
            Hash <code>{open.hash}</code>
          </p>
          <pre class="output" tabIndex={0} aria-label={`Record ${open.seq}`}>
            {inlineLines(JSON.stringify(open.record, null, 2))}
          </pre>
        </Section>
      )}
    </Page>
  );
}

function text(entry: Entry, name: string): string {
  const value = entry.record[name];
  return value == null ? "" : String(value);
}

function inlineLines(value: string): string {
  return value.split("\n").map(inline).join("\n");
}

function Chain({ address }: { address: string }): JSX.Element {
  const api = useApi();
  const [verdict, setVerdict] = useState<Verdict | null>(null);
  const checking = useAction(async () => {
    setVerdict(await api.get<Verdict>(`${address}/verification`));
  });
  return (
    <>
      <div class="actions">
        <button type="button" disabled={checking.busy} onClick={() => void checking.run()}>
          Verify the whole log
        </button>
        {checking.busy && <span role="status">Computing every hash …</span>}
      </div>
      <Notice problem={checking.problem} />
      {verdict && (
        <>
          <p class={verdict.valid ? "notice good" : "notice bad"} role="status">
            {verdict.valid
              ? `Intact: ${count(verdict.records)} records, none changed, removed, inserted or moved.`
              : `Not intact: ${inline(verdict.fault ?? "")}`}
          </p>
          <Facts
            of={[
              ["Newest hash", <code>{verdict.head}</code>],
              [
                "Sealed up to",
                verdict.checkpoint ? `record ${verdict.checkpoint.seq}` : "no checkpoint yet",
              ],
              ["Sealed at", <Time at={verdict.checkpoint?.at} />],
              ["By key", verdict.checkpoint ? <code>{verdict.checkpoint.key}</code> : "–"],
            ]}
          />
        </>
      )}
    </>
  );
}
