// The console of a tenant: who is logged in, and which page is open.
import type { JSX } from "preact";
import { Asked, useEntrance } from "./entrance";
import { Accept } from "./pages/accept";
import { Login, refusal } from "./pages/login";
import { go, link, usePlace } from "./router";
import { ApiContext, SessionContext, type Me, type Session } from "./session";
import { Shell } from "./shell";

export function App(): JSX.Element {
  const place = usePlace();
  const { api, who, problem, ask, left } = useEntrance<Me>("/v1/me", "/v1/login");
  if (place.parts[0] === "accept") return <Accept api={api} />;
  const refused = place.parts[0] === "sign-in";
  if (refused || who.state === "stranger") {
    return (
      <Login
        api={api}
        why={refused ? refusal(place.parts[1]) : who.state === "stranger" ? who.why : null}
        wanted={refused ? "" : location.hash.replace(/^#\/?/, "")}
        loggedIn={() => {
          if (refused) go(link());
          ask();
        }}
      />
    );
  }
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
