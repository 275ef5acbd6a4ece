// The console of a deployment's operators. It has a session of its own and asks `/operator/v1` alone:
// whoever is logged in to a tenant's console is a stranger here.
import type { JSX } from "preact";
import { Asked, useEntrance } from "../entrance";
import { Audit } from "../pages/audit";
import { Frame, type Entry } from "../parts/frame";
import { usePlace } from "../router";
import { ApiContext } from "../session";
import { inline } from "../text";
import { Invitations } from "./invitations";
import { Login } from "./login";
import { Node } from "./node";
import { Nodes } from "./nodes";
import { Overview } from "./overview";
import { Tenant } from "./tenant";
import { Tenants } from "./tenants";
import { NAME, SESSION, type Me } from "./views";

const ENTRIES: Entry[] = [
  { name: "", title: "Overview", page: () => <Overview /> },
  {
    name: "nodes",
    title: "Nodes",
    page: ({ parts: [, name], query }) =>
      name ? <Node key={name} name={name} /> : <Nodes query={query} />,
  },
  { name: "invitations", title: "Invitations", page: () => <Invitations /> },
  {
    name: "tenants",
    title: "Tenants",
    page: ({ parts: [, id], query }) =>
      id ? <Tenant key={id} id={id} /> : <Tenants query={query} />,
  },
  {
    name: "audit",
    title: "Audit log",
    page: ({ query }) => <Audit address="/operator/v1/audit" exports query={query} />,
  },
];

export function App(): JSX.Element {
  const place = usePlace();
  const { api, who, problem, ask, left } = useEntrance<Me>(SESSION, SESSION);
  if (who.state === "stranger") return <Login api={api} why={who.why} loggedIn={ask} />;
  if (who.state === "asking") return <Asked problem={problem} ask={ask} />;
  const logOut = async (): Promise<void> => {
    await api.send("DELETE", SESSION);
    left();
  };
  return (
    <ApiContext.Provider value={api}>
      <Frame
        title={NAME}
        who={
          <>
            <span>{inline(who.me.name)}</span> <span class="state">operator</span>
          </>
        }
        entries={ENTRIES}
        place={place}
        logOut={logOut}
      />
    </ApiContext.Provider>
  );
}
