// The console: who is logged in, and which page is open.
import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { Api, type Problem } from "./api";
import { problemOf } from "./hooks";
import { Login } from "./pages/login";
import { Accept } from "./pages/accept";
import { Notice } from "./parts/common";
import { Presence } from "./presence";
import { usePlace } from "./router";
import { SessionContext, type Me, type Session } from "./session";
import { Shell } from "./shell";

type Who = { state: "asking" } | { state: "stranger"; why: string | null } | { state: "known"; me: Me };

const OVER = "Your session has ended. Log in again to go on.";

export function App(): JSX.Element {
  const [who, setWho] = useState<Who>({ state: "asking" });
  const [problem, setProblem] = useState<Problem | null>(null);
  const place = usePlace();
  const api = useMemo(
    () =>
      new Api(
        () =>
          setWho((before) => ({ state: "stranger", why: before.state === "known" ? OVER : null })),
        new Presence(window),
      ),
    [],
  );
  const ask = async (): Promise<void> => {
    setProblem(null);
    try {
      const me = await api.get<Me>("/v1/me");
      api.trust(me.csrf_token);
      setWho({ state: "known", me });
    } catch (error) {
      const found = problemOf(error);
      if (found.status !== 401) setProblem(found);
    }
  };
  useEffect(() => void ask(), []);

  if (place.parts[0] === "accept") return <Accept api={api} />;
  if (who.state === "stranger") return <Login api={api} why={who.why} loggedIn={() => void ask()} />;
  if (who.state === "asking") {
    return (
      <main class="alone">
        {problem ? (
          <>
            <Notice problem={problem} />
            <button type="button" onClick={() => void ask()}>
              Try again
            </button>
          </>
        ) : (
          <p class="quiet">Loading …</p>
        )}
      </main>
    );
  }
  const session: Session = {
    api,
    me: who.me,
    can: (permission) => who.me.permissions.includes(permission),
  };
  return (
    <SessionContext.Provider value={session}>
      <Shell place={place} left={() => setWho({ state: "stranger", why: null })} />
    </SessionContext.Provider>
  );
}
