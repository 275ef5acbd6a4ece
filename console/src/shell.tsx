// The pages of a tenant's console, by what the role may do.
import type { JSX } from "preact";
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
import { Frame, type Entry } from "./parts/frame";
import type { Place } from "./router";
import { useSession } from "./session";
import { inline } from "./text";

const ENTRIES: (Entry & { permission: string | null })[] = [
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
  { name: "audit", title: "Audit log", permission: "audit:read", page: ({ query }) => <AuditLog query={query} /> },
  { name: "keys", title: "API keys", permission: "api_key:read", page: () => <Keys /> },
  { name: "members", title: "Members", permission: "member:read", page: () => <Members /> },
  { name: "account", title: "Your account", permission: "account:read", page: () => <Account /> },
];

export function Shell({ place, left }: { place: Place; left: () => void }): JSX.Element {
  const { api, me, can } = useSession();
  const logOut = async (): Promise<void> => {
    await api.send("POST", "/v1/logout");
    left();
  };
  return (
    <Frame
      title="Agent Runner"
      who={
        <>
          <span title="Tenant">{inline(me.tenant)}</span> · <span>{inline(me.email ?? me.name)}</span>{" "}
          <span class="state">{me.role}</span>
        </>
      }
      entries={ENTRIES.filter(({ permission }) => !permission || can(permission))}
      place={place}
      logOut={logOut}
    />
  );
}

function AuditLog({ query }: { query: URLSearchParams }): JSX.Element {
  const { can } = useSession();
  return <Audit address="/v1/audit" exports={can("audit:export")} query={query} />;
}
