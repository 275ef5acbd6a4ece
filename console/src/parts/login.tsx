// The page on which somebody logs in. Each console has its own fields, and its own way to send them.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Problem } from "../api";
import { Form } from "./common";

export function LoginPage(given: {
  /** What somebody logs in to. */
  name: string;
  /** Why they have to, if there is more to it than that they are not logged in. */
  why: string | null;
  entering: { busy: boolean; problem: Problem | null };
  sent: (values: Record<string, string>, form: HTMLFormElement) => void;
  fields: ComponentChildren;
  /** Other ways in. */
  children?: ComponentChildren;
}): JSX.Element {
  const page = useRef<HTMLElement>(null);
  useEffect(() => {
    document.title = `Log in · ${given.name}`;
    page.current?.querySelector("input")?.focus();
  }, [given.name]);
  return (
    <main class="alone" ref={page}>
      <h1>{given.name}</h1>
      {given.why && (
        <p class="notice" role="status">
          {given.why}
        </p>
      )}
      <Form
        label="Log in"
        button="Log in"
        busy={given.entering.busy}
        problem={given.entering.problem}
        sent={given.sent}
      >
        {given.fields}
      </Form>
      {given.children}
    </main>
  );
}
