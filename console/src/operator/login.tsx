import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Api } from "../api";
import { useAction } from "../hooks";
import { Form, Input } from "../parts/common";
import { NAME, SESSION } from "./views";

/** The key goes to the API once, for a session. The page keeps it nowhere. */
export function Login(given: {
  api: Api;
  why: string | null;
  loggedIn: () => void;
}): JSX.Element {
  const entering = useAction(async (key: string) => {
    await given.api.send("POST", SESSION, undefined, { Authorization: `Bearer ${key}` });
    given.loggedIn();
  });
  const page = useRef<HTMLElement>(null);
  useEffect(() => {
    document.title = `Log in · ${NAME}`;
    page.current?.querySelector("input")?.focus();
  }, []);
  return (
    <main class="alone" ref={page}>
      <h1>{NAME}</h1>
      {given.why && (
        <p class="notice" role="status">
          {given.why}
        </p>
      )}
      <Form
        label="Log in"
        button="Log in"
        busy={entering.busy}
        problem={entering.problem}
        sent={({ key = "" }, form) => {
          form.reset();
          void entering.run(key.trim());
        }}
      >
        <Input
          label="Operator's key"
          name="key"
          type="password"
          autoComplete="off"
          required
          hint="It begins with ro_ and is exchanged for a session: the browser does not keep it."
        />
      </Form>
    </main>
  );
}
