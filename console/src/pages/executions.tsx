import type { JSX } from "preact";
import { Choice, Input, Page, State, Table, Time } from "../parts/common";
import { Pages, usePages } from "../parts/pages";
import { go, link } from "../router";
import { useSession } from "../session";
import { between, inline, short } from "../text";
import { STATES, type ExecutionView } from "../views";

export function Executions({ query }: { query: URLSearchParams }): JSX.Element {
  const { can } = useSession();
  const state = query.get("state") ?? "";
  const project = query.get("project") ?? "";
  const label = query.get("label") ?? "";
  const found = usePages<ExecutionView>("/v1/executions", { state, project, metadata: label });
  const narrow = (changes: Record<string, string>): void => {
    const wanted = { state, project, label, ...changes };
    const chosen = Object.entries(wanted).filter(([, value]) => value);
    go(`${link("executions")}${chosen.length ? `?${new URLSearchParams(chosen)}` : ""}`);
  };
  return (
    <Page
      title="Executions"
      actions={
        <>
          <button type="button" onClick={found.reload}>
            Reload
          </button>
          {can("execution:create") && (
            <a class="button main" href={link("executions", "new")}>
              Run a program
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
          options={[["", "all"], ...STATES]}
          changed={(value) => narrow({ state: value })}
        />
        <Input
          label="Project"
          name="project"
          key={`project ${project}`}
          defaultValue={project}
          onChange={(event) => narrow({ project: event.currentTarget.value })}
        />
        <Input
          label="Label"
          name="label"
          key={`label ${label}`}
          defaultValue={label}
          placeholder="key=value"
          onChange={(event) => narrow({ label: event.currentTarget.value })}
        />
      </div>
      <Pages of={found} label="executions">
        {(items) => <ExecutionTable items={items} />}
      </Pages>
    </Page>
  );
}

export function ExecutionTable({ items }: { items: ExecutionView[] }): JSX.Element {
  return (
    <Table
      label="Executions"
      head={["Execution", "State", "Language", "Image", "Size", "Project", "Labels", "Created", "Took"]}
      empty="There are no executions here."
      rows={items.map((each) => ({
        key: each.id,
        cells: [
          <a href={link("executions", each.id)} title={each.id}>
            <code>{short(each.id)}</code>
          </a>,
          <State of={each.state} />,
          each.language ?? "command",
          inline(each.image),
          inline(each.size),
          each.project ? inline(each.project) : "–",
          <Labels of={each.metadata} />,
          <Time at={each.created_at} />,
          each.ended_at ? between(each.started_at, each.ended_at) : "–",
        ],
      }))}
    />
  );
}

export function Labels({ of }: { of: Record<string, string> }): JSX.Element {
  const labels = Object.entries(of);
  if (!labels.length) return <>–</>;
  return (
    <span class="labels">
      {labels.map(([name, value]) => (
        <code key={name}>
          {inline(name)}={inline(value)}
        </code>
      ))}
    </span>
  );
}
