import type { JSX } from "preact";
import { withQuery, type Api } from "../api";
import { useAction, useLoad } from "../hooks";
import { Input, NAME } from "../parts/common";
import { LoginPage } from "../parts/login";
import { link } from "../router";
import { inline } from "../text";

/** Why the identity provider led nobody in: what the API's `Refusal` says, in a sentence. */
const REFUSALS: Record<string, string> = {
  denied: "You are not signed in: you or the identity provider declined.",
  stale:
    "This sign-in was begun in another browser, is finished already, or took more than ten minutes. Sign in again.",
  "no-member":
    "The identity provider knows you, but you are no member here yet. Ask your administrator to link your account.",
  several: "You belong to several tenants. Enter the name of one below, and sign in again.",
  refused: "The identity provider's answer was not accepted. Sign in again; if that fails, tell your administrator.",
  unavailable: "Signing in is not possible at the moment. Try again in a minute.",
  "too-many": "There were too many attempts from your address. Try again later.",
  invalid: "The address that led here is not valid. Sign in again; if that fails, tell your administrator.",
  "no-provider": "This deployment has no identity provider. Log in with your password.",
};

export function refusal(reason: string | undefined): string {
  return (reason && Object.hasOwn(REFUSALS, reason) && REFUSALS[reason]) || "You are not signed in.";
}

interface Ways {
  provider: { name: string } | null;
}

export function Login(given: {
  api: Api;
  why: string | null;
  /** The page to show afterwards: what is behind `#/` in its address. */
  wanted: string;
  loggedIn: () => void;
}): JSX.Element {
  const ways = useLoad<Ways>((signal) => given.api.get("/v1/login", {}, signal), "ways");
  const provider = ways.data?.provider;
  const entering = useAction(async (values: Record<string, string>) => {
    const { email, password, tenant } = values;
    const body = { email, password, ...(tenant ? { tenant } : {}) };
    await given.api.send("POST", "/v1/login", body);
    given.loggedIn();
  });
  const leave = (event: Event): void => {
    const page = (event.currentTarget as HTMLElement).closest("main");
    const tenant = page?.querySelector<HTMLInputElement>("input[name=tenant]")?.value.trim();
    location.assign(withQuery("/v1/login/oidc", { page: given.wanted, tenant }));
  };
  return (
    <LoginPage
      name={NAME}
      why={given.why}
      entering={entering}
      sent={(values) => void entering.run(values)}
      fields={
        <>
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
        </>
      }
    >
      {provider && (
        <p>
          <button type="button" onClick={leave}>
            Sign in with {inline(provider.name)}
          </button>
        </p>
      )}
      <p>
        <a href={link("accept")}>I have a token of an invitation or a reset</a>
      </p>
    </LoginPage>
  );
}
