import type { ComponentType, JSX } from "preact";
import { useState } from "preact/hooks";
import { useLoad } from "../hooks";
import { Notice } from "./common";

/** A part of the console that is loaded when it is first shown. */
export function lazy<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  return function Lazy(given: P): JSX.Element {
    const [once] = useState(() => load);
    const found = useLoad(async () => ({ Part: await once() }), "part");
    if (found.data) {
      const { Part } = found.data;
      return <Part {...given} />;
    }
    return <>{found.problem ? <Notice problem={found.problem} /> : <p class="quiet">Loading …</p>}</>;
  };
}
