import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Api } from "../api";
import { useAction } from "../hooks";
import { Form, Input } from "../parts/common";
import { link } from "../router";

export function Login(given: {
  api: Api;
  why: string | null;
  loggedIn: () => void;
}): JSX.Element {
  const entering = useAction(async (values: Record<string, string>) => {
    const { email, password, tenant } = values;
    const body = { email, password, ...(tenant ? { tenant } : {}) };
    await given.api.send("POST", "/v1/login", body);
    given.loggedIn();
  });
  const page = useRef<HTMLElement>(null);
  useEffect(() => {
    document.title = "Log in · Agent Runner";
    page.current?.querySelector("input")?.focus();
  }, []);
  return (
    <main class="alone" ref={page}>
      <h1>Agent Runner</h1>
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
        sent={(values) => void entering.run(values)}
      >
        <Input label="E-mail" name="email" type="email" autoComplete="username" required />
        <Input
          label="Password"
          name="password"
          type="password"
          autoComplete="current-password"
          required
        />
        <Input
          label="Tenant"
          name="tenant"
          autoComplete="organization"
          hint="Only if you belong to several; otherwise leave it empty."
        />
      </Form>
      <p>
        <a href={link("accept")}>I have a token of an invitation or a reset</a>
      </p>
    </main>
  );
}
