// The console of a tenant: who is logged in, and which page is open.
import type { JSX } from "preact";
import { Asked, useEntrance } from "./entrance";
import { Accept } from "./pages/accept";
import { Login } from "./pages/login";
import { usePlace } from "./router";
import { ApiContext, SessionContext, type Me, type Session } from "./session";
import { Shell } from "./shell";

export function App(): JSX.Element {
  const place = usePlace();
  const { api, who, problem, ask, left } = useEntrance<Me>("/v1/me", "/v1/login");
  if (place.parts[0] === "accept") return <Accept api={api} />;
  if (who.state === "stranger") return <Login api={api} why={who.why} loggedIn={ask} />;
  if (who.state === "asking") return <Asked problem={problem} ask={ask} />;
  const session: Session = {
    api,
    me: who.me,
    can: (permission) => who.me.permissions.includes(permission),
  };
  return (
    <ApiContext.Provider value={api}>
      <SessionContext.Provider value={session}>
        <Shell place={place} left={left} />
      </SessionContext.Provider>
    </ApiContext.Provider>
  );
}
