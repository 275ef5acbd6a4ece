// A tenant, as far as it is the operator's: its terms, whether it is suspended, how much it uses.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { path } from "../api";
import { useAction, useLoad, type Action } from "../hooks";
import { Once } from "../parts/collection";
import { Choice, Facts, Form, Input, Loading, Page, Section, State, Time } from "../parts/common";
import { amount } from "../parts/quotas";
import { UsageReported } from "../parts/usage";
import { useApi } from "../session";
import { count, inline, words } from "../text";
import { ROLES } from "../pages/members";
import { Terms } from "./terms";
import type { TenantView } from "./views";

export function Tenant({ id }: { id: string }): JSX.Element {
  const api = useApi();
  const address = path`/operator/v1/tenants/${id}`;
  const [token, setToken] = useState<string | null>(null);
  const found = useLoad((signal) => api.get<TenantView>(address, {}, signal), id);
  const changing = useAction(async (terms: Record<string, unknown>) => {
    await api.send("PATCH", address, terms);
    found.reload();
  });
  const suspending = useAction(async (order: "suspend" | "resume", why?: string) => {
    await api.send("POST", `${address}/${order}`, why === undefined ? undefined : { why });
    found.reload();
  });
  const keying = useAction(async (values: Record<string, string>) => {
    setToken(null);
    setToken((await api.send<{ token: string }>("POST", `${address}/keys`, values)).token);
  });
  return (
    <Page title={found.data ? `Tenant ${inline(found.data.name)}` : "Tenant"}>
      {token && <Once text={token} />}
      <Loading of={found}>
        {(tenant) => (
          <>
            <Section title="Terms">
              <TermFacts of={tenant} />
            </Section>
            <Section title="Change the terms">
              <Terms key={JSON.stringify(tenant)} of={tenant} by={changing} />
            </Section>
            <Section title="Suspension">
              <Suspension of={tenant} by={suspending} />
            </Section>
            <UsageReported key={`usage ${JSON.stringify(tenant)}`} address={`${address}/usage`} />
            <Section title="Make a key">
              <p class="hint">For a tenant that has lost its own. The tenant's log records it.</p>
              <Form
                label="Make a key"
                button="Make a key"
                busy={keying.busy}
                problem={keying.problem}
                sent={(values) => void keying.run(values)}
              >
                <div class="filters">
                  <Input label="Name" name="name" required maxLength={128} defaultValue="made by the operator" />
                  <Choice label="Role" name="role" options={ROLES} first="owner" />
                </div>
              </Form>
            </Section>
          </>
        )}
      </Loading>
    </Page>
  );
}

function TermFacts({ of }: { of: TenantView }): JSX.Element {
  const limits = Object.entries(of.max_limits).map(([name, value]) => `${words(name)} ${count(value)}`);
  const quotas = Object.entries(of.quotas).map(
    ([name, value]) =>
      `${words(name)} ${typeof value === "number" ? amount(name, value) : inline(value)}`,
  );
  return (
    <Facts
      of={[
        ["Id", <code>{of.id}</code>],
        ["State", <State of={of.suspended_at ? "suspended" : "active"} />],
        ["Tier", of.tier],
        ["Executions at once", of.max_concurrency ?? "the tier's"],
        ["At most for each", limits.join(", ")],
        ["Isolation", of.required_isolation ?? "any"],
        ["Own quotas", quotas.join(", ") || "none: the tier's"],
        [
          "Ceiling of egress",
          of.egress_ceiling ? <code>{inline(JSON.stringify(of.egress_ceiling))}</code> : "the deployment's",
        ],
        ["Executions are kept", of.retention_days ? `${of.retention_days} days` : "as the deployment has set"],
        ["Reuse of sandboxes", of.reuse ? "permitted" : "not permitted"],
        ["Since", <Time at={of.created_at} />],
      ]}
    />
  );
}

function Suspension(given: {
  of: TenantView;
  by: Action<["suspend" | "resume", string?]>;
}): JSX.Element {
  const { of, by } = given;
  if (of.suspended_at) {
    return (
      <Form
        label="End the suspension"
        button="End the suspension"
        busy={by.busy}
        problem={by.problem}
        sent={() => void by.run("resume")}
      >
        <p>
          Suspended since <Time at={of.suspended_at} />: {inline(of.suspended_why ?? "")}
        </p>
      </Form>
    );
  }
  return (
    <Form
      label="Suspend"
      button="Suspend"
      busy={by.busy}
      problem={by.problem}
      sent={({ why = "" }) => void by.run("suspend", why)}
    >
      <Input
        label="Reason"
        name="why"
        required
        maxLength={512}
        hint="The tenant sees it. It can then only read, and what it runs ends."
      />
    </Form>
  );
}
