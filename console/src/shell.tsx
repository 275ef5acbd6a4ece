// What surrounds every page: navigation by what the role may do, and the way out.
import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import { Notice, Page } from "./parts/common";
import { useAction } from "./hooks";
import { Account } from "./pages/account";
import { Audit } from "./pages/audit";
import { Egress } from "./pages/egress";
import { Execution } from "./pages/execution";
import { Executions } from "./pages/executions";
import { Keys } from "./pages/keys";
import { Members } from "./pages/members";
import { Overview } from "./pages/overview";
import { Projects } from "./pages/projects";
import { RunProgram } from "./pages/run_program";
import { Sandbox } from "./pages/sandbox";
import { NewSandbox, Sandboxes } from "./pages/sandboxes";
import { Secrets } from "./pages/secrets";
import { Templates } from "./pages/templates";
import { Usage } from "./pages/usage";
import { link, type Place } from "./router";
import { useSession } from "./session";
import { inline } from "./text";

interface Entry {
  name: string;
  title: string;
  permission: string | null;
  page: (place: Place) => ComponentChildren;
}

const ENTRIES: Entry[] = [
  { name: "", title: "Overview", permission: null, page: () => <Overview /> },
  {
    name: "executions",
    title: "Executions",
    permission: "execution:read",
    page: ({ parts: [, id], query }) => {
      if (id === "new") return <RunProgram />;
      return id ? <Execution key={id} id={id} /> : <Executions query={query} />;
    },
  },
  {
    name: "sandboxes",
    title: "Sandboxes",
    permission: "sandbox:read",
    page: ({ parts: [, ...rest], query }) => {
      if (rest[0] === "new") return <NewSandbox />;
      return rest[0] ? <Sandbox key={rest[0]} parts={rest} /> : <Sandboxes query={query} />;
    },
  },
  { name: "templates", title: "Templates", permission: "template:read", page: () => <Templates /> },
  { name: "projects", title: "Projects", permission: "project:read", page: () => <Projects /> },
  { name: "egress", title: "Egress policies", permission: "egress_policy:read", page: () => <Egress /> },
  { name: "secrets", title: "Secrets", permission: "secret:read", page: () => <Secrets /> },
  { name: "usage", title: "Usage", permission: "usage:read", page: () => <Usage /> },
  { name: "audit", title: "Audit log", permission: "audit:read", page: ({ query }) => <Audit query={query} /> },
  { name: "keys", title: "API keys", permission: "api_key:read", page: () => <Keys /> },
  { name: "members", title: "Members", permission: "member:read", page: () => <Members /> },
  { name: "account", title: "Your account", permission: "account:read", page: () => <Account /> },
];

export function Shell({ place, left }: { place: Place; left: () => void }): JSX.Element {
  const { api, me, can } = useSession();
  const [open, setOpen] = useState(false);
  const leaving = useAction(async () => {
    await api.send("POST", "/v1/logout");
    left();
  });
  const entries = ENTRIES.filter(({ permission }) => !permission || can(permission));
  const name = place.parts[0] ?? "";
  const entry = entries.find((each) => each.name === name);
  return (
    <div class="shell">
      <a class="skip" href="#main" onClick={skip}>
        Skip to the page
      </a>
      <header class="top">
        <button
          type="button"
          class="menu"
          aria-expanded={open}
          aria-controls="pages"
          onClick={() => setOpen(!open)}
        >
          Menu
        </button>
        <strong>Agent Runner</strong>
        <span class="who">
          <span title="Tenant">{inline(me.tenant)}</span> · <span>{inline(me.email ?? me.name)}</span>{" "}
          <span class="state">{me.role}</span>
        </span>
        <button type="button" disabled={leaving.busy} onClick={() => void leaving.run()}>
          Log out
        </button>
      </header>
      <nav id="pages" class={open ? "pages open" : "pages"} aria-label="Pages">
        <ul>
          {entries.map((each) => (
            <li key={each.name}>
              <a
                href={link(...(each.name ? [each.name] : []))}
                aria-current={each === entry ? "page" : undefined}
                onClick={() => setOpen(false)}
              >
                {each.title}
              </a>
            </li>
          ))}
        </ul>
        <p class="hint">
          <a href="/docs">API reference</a>
          <br />
          <a href="/console/licences.txt">Licences</a>
        </p>
      </nav>
      <main id="main" tabIndex={-1}>
        <Notice problem={leaving.problem} />
        {entry ? entry.page(place) : <Nothing />}
      </main>
    </div>
  );
}

function skip(event: Event): void {
  // Its address would be a page of ours.
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Nothing(): JSX.Element {
  return (
    <Page title="No such page">
      <p>There is no such page, or your role may not see it.</p>
    </Page>
  );
}
