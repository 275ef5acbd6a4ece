import type { JSX } from "preact";
import { path } from "../api";
import { useAction, useLoad } from "../hooks";
import { Asking, Facts, Form, Input, Loading, Notice, Page, Section, Table, Time } from "../parts/common";
import { useSession } from "../session";
import { inline } from "../text";

interface Login {
  id: string;
  tenant: string;
  ip: string | null;
  user_agent: string | null;
  created_at: string;
  last_used_at: string;
  current: boolean;
}

export function Account(): JSX.Element {
  const { api, me } = useSession();
  const found = useLoad((signal) => api.get<{ items: Login[] }>("/v1/sessions", {}, signal), "");
  const ending = useAction(async (id: string) => {
    await api.send("DELETE", path`/v1/sessions/${id}`);
    found.reload();
  });
  const changing = useAction(async (values: Record<string, string>) => {
    await api.send("PUT", "/v1/me/password", { current: values["current"], new: values["new"] });
    // Every session has ended with the old password, this one too: what is loaded now leads to the login.
    found.reload();
  });
  return (
    <Page title="Your account">
      <Section title="You">
        <Facts
          of={[
            ["E-mail", inline(me.email ?? "–")],
            ["Tenant", inline(me.tenant)],
            ["Role", me.role],
            ["All tenants", me.memberships.map((each) => `${inline(each.tenant)} (${each.role})`).join(", ")],
          ]}
        />
        <p class="hint">To work in another tenant, log out and name it when you log in.</p>
      </Section>
      <Section title="Your sessions">
        <Notice problem={ending.problem} />
        <Loading of={found}>
          {({ items }) => (
            <Table
              label="Sessions"
              head={["Tenant", "Address", "Browser", "Since", "Last used", ""]}
              empty="You have no session."
              rows={items.map((each) => ({
                key: each.id,
                cells: [
                  inline(each.tenant),
                  each.ip ?? "–",
                  inline(each.user_agent ?? "–"),
                  <Time at={each.created_at} />,
                  <Time at={each.last_used_at} />,
                  each.current ? (
                    "this one"
                  ) : (
                    <Asking
                      label="End"
                      name={`End the session from ${each.ip ?? "an unknown address"}`}
                      question="End this session? Whoever uses it must log in again."
                      act={() => ending.run(each.id)}
                    />
                  ),
                ],
              }))}
            />
          )}
        </Loading>
      </Section>
      <Section title="Change your password">
        <Form
          label="Change your password"
          button="Change it"
          busy={changing.busy}
          problem={changing.problem}
          sent={(values) => void changing.run(values)}
        >
          <Input label="Current password" name="current" type="password" autoComplete="current-password" required />
          <Input
            label="New password"
            name="new"
            type="password"
            autoComplete="new-password"
            required
            hint="All your sessions end, including this one."
          />
        </Form>
      </Section>
    </Page>
  );
}
