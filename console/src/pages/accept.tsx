import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Api } from "../api";
import { useAction } from "../hooks";
import { Form, Input } from "../parts/common";
import { link } from "../router";

export function Accept({ api }: { api: Api }): JSX.Element {
  const [done, setDone] = useState(false);
  const accepting = useAction(async ({ token, password }: Record<string, string>) => {
    await api.send("POST", "/v1/login/accept", { token, password });
    setDone(true);
  });
  useEffect(() => {
    document.title = "Use a token · Agent Runner";
  }, []);
  return (
    <main class="alone">
      <h1>Use a token</h1>
      {done ? (
        <p class="notice" role="status">
          Done. You can log in now.
        </p>
      ) : (
        <Form
          label="Use a token"
          button="Accept"
          busy={accepting.busy}
          problem={accepting.problem}
          sent={(values) => void accepting.run(values)}
        >
          <Input label="Token" name="token" autoComplete="off" required />
          <Input
            label="Password"
            name="password"
            type="password"
            autoComplete="new-password"
            required
            hint="For an invitation: your password if you have an account, else a new one. For a reset: the new one."
          />
        </Form>
      )}
      <p>
        <a href={link()}>Log in</a>
      </p>
    </main>
  );
}
