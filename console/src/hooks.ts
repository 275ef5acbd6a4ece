// What pages do with the API: load, act, and follow what happens.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Problem, said, type Api, type ServerEvent } from "./api";

export interface Loaded<T> {
  data: T | null;
  problem: Problem | null;
  loading: boolean;
  reload: () => void;
}

/** Load when `key` changes, and again on `reload`; an answer that comes too late is dropped. */
export function useLoad<T>(load: (signal: AbortSignal) => Promise<T>, key: string): Loaded<T> {
  const [turn, setTurn] = useState(0);
  const [state, setState] = useState<{ key: string; data: T | null; problem: Problem | null }>({
    key: "",
    data: null,
    problem: null,
  });
  const [loading, setLoading] = useState(true);
  useEffect(() => {
    const leaving = new AbortController();
    setLoading(true);
    load(leaving.signal)
      .then((data) => ({ key, data, problem: null }))
      .catch((error) => ({ key, data: null, problem: problemOf(error) }))
      .then((found) => {
        if (leaving.signal.aborted) return;
        setState((before) =>
          // What was there stays while the API does not answer.
          found.problem && before.key === key ? { ...before, problem: found.problem } : found,
        );
        setLoading(false);
      });
    return () => leaving.abort();
  }, [key, turn]);
  const reload = useCallback(() => setTurn((before) => before + 1), []);
  const current = state.key === key;
  return {
    data: current ? state.data : null,
    problem: current ? state.problem : null,
    loading,
    reload,
  };
}

/** Load again every so many milliseconds while the page can be seen. */
export function useEvery(milliseconds: number, reload: () => void): void {
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden) reload();
    }, milliseconds);
    return () => clearInterval(timer);
  }, [milliseconds, reload]);
}

/** Load again some time after each answer, however long it took. */
export function useRefresh<T>(milliseconds: number, of: Loaded<T>, wanted = true): void {
  useEvery(milliseconds, wanted && !of.loading ? of.reload : nothing);
}

function nothing(): void {}

export interface Action<A extends unknown[]> {
  run: (...given: A) => Promise<boolean>;
  busy: boolean;
  problem: Problem | null;
}

/** Something that a person starts; `run` resolves to whether it succeeded. */
export function useAction<A extends unknown[]>(act: (...given: A) => Promise<unknown>): Action<A> {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const run = async (...given: A): Promise<boolean> => {
    setBusy(true);
    setProblem(null);
    try {
      await act(...given);
      return true;
    } catch (error) {
      setProblem(problemOf(error));
      return false;
    } finally {
      setBusy(false);
    }
  };
  return { run, busy, problem };
}

/** A number that changes when the page is to be drawn again: once a frame, however often it is asked. */
export function useDrawing(): { turn: number; draw: () => void } {
  const [turn, setTurn] = useState(0);
  const waiting = useRef(false);
  const draw = useCallback(() => {
    if (waiting.current) return;
    waiting.current = true;
    requestAnimationFrame(() => {
      waiting.current = false;
      setTurn((before) => before + 1);
    });
  }, []);
  return { turn, draw };
}

export type Following = "open" | "lost" | "ended";
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;

/** Follow a stream of events. After a lost connection it goes on behind the last event seen. */
export function useEvents(
  api: Api,
  address: string,
  heard: (event: ServerEvent) => void,
  isLast: (event: ServerEvent) => boolean,
): { state: Following; problem: Problem | null } {
  const [state, setState] = useState<Following>("open");
  const [problem, setProblem] = useState<Problem | null>(null);
  const latest = useRef(heard);
  latest.current = heard;
  useEffect(() => {
    const leaving = new AbortController();
    const { signal } = leaving;
    setState("open");
    setProblem(null);
    const follow = async (): Promise<void> => {
      let last: string | null = null;
      let pause = FIRST_PAUSE_MS;
      while (!signal.aborted) {
        try {
          for await (const event of api.events(address, last, signal)) {
            if (signal.aborted) return;
            setState("open");
            pause = FIRST_PAUSE_MS;
            if (event.id) last = event.id;
            latest.current(event);
            if (isLast(event)) return setState("ended");
          }
        } catch (error) {
          const found = problemOf(error);
          if (signal.aborted) return;
          if (!found.isLostConnection && found.status !== 429 && found.status !== 503) {
            setProblem(found);
            return setState("ended");
          }
        }
        setState("lost");
        await paused(pause, signal);
        pause = Math.min(LONGEST_PAUSE_MS, pause * 2);
      }
    };
    void follow();
    return () => leaving.abort();
  }, [address]);
  return { state, problem };
}

export function paused(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

export function problemOf(error: unknown): Problem {
  return error instanceof Problem ? error : new Problem(0, said(error));
}
