import type { JSX } from "preact";
import type { Api } from "../api";
import { useAction } from "../hooks";
import { Input } from "../parts/common";
import { LoginPage } from "../parts/login";
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
  return (
    <LoginPage
      name={NAME}
      why={given.why}
      entering={entering}
      sent={({ key = "" }, form) => {
        form.reset();
        void entering.run(key.trim());
      }}
      fields={
        <Input
          label="Operator's key"
          name="key"
          type="password"
          autoComplete="off"
          required
          hint="It begins with ro_ and is exchanged for a session: the browser does not keep it."
        />
      }
    />
  );
}
