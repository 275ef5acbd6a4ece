// Who has come: somebody whom the API knows by their session, or a stranger who is to log in.
import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { Api, type Problem } from "./api";
import { problemOf } from "./hooks";
import { Notice } from "./parts/common";
import { Presence } from "./presence";

export type Who<M> =
  | { state: "asking" }
  | { state: "stranger"; why: string | null }
  | { state: "known"; me: M };

export interface Entrance<M> {
  api: Api;
  who: Who<M>;
  problem: Problem | null;
  ask: () => void;
  left: () => void;
}

const OVER = "Your session has ended. Log in again to go on.";

/** `me` is where the API tells who has come, and `login` where strangers log in. */
export function useEntrance<M extends { csrf_token: string | null }>(
  me: string,
  login: string,
): Entrance<M> {
  const [who, setWho] = useState<Who<M>>({ state: "asking" });
  const [problem, setProblem] = useState<Problem | null>(null);
  const api = useMemo(
    () =>
      new Api(
        () =>
          setWho((before) => ({ state: "stranger", why: before.state === "known" ? OVER : null })),
        new Presence(window),
        login,
      ),
    [],
  );
  const ask = async (): Promise<void> => {
    setProblem(null);
    try {
      const found = await api.get<M>(me);
      api.trust(found.csrf_token);
      setWho({ state: "known", me: found });
    } catch (error) {
      const found = problemOf(error);
      if (found.status !== 401) setProblem(found);
    }
  };
  useEffect(() => void ask(), []);
  return {
    api,
    who,
    problem,
    ask: () => void ask(),
    left: () => setWho({ state: "stranger", why: null }),
  };
}

/** What is shown until the API has said who has come. */
export function Asked({ problem, ask }: { problem: Problem | null; ask: () => void }): JSX.Element {
  return (
    <main class="alone">
      {problem ? (
        <>
          <Notice problem={problem} />
          <button type="button" onClick={ask}>
            Try again
          </button>
        </>
      ) : (
        <p class="quiet">Loading …</p>
      )}
    </main>
  );
}
