import type { JSX } from "preact";
import { Collection } from "../parts/collection";
import { Choice, Form, Input, State, Time } from "../parts/common";
import { Pager, usePages } from "../parts/pages";
import { go, link } from "../router";
import { useApi } from "../session";
import { inline } from "../text";
import { TIERS, type TenantView } from "./views";

export function Tenants({ query }: { query: URLSearchParams }): JSX.Element {
  const api = useApi();
  const name = query.get("name") ?? "";
  const found = usePages<TenantView>("/operator/v1/tenants", { name });
  return (
    <Collection
      title="Tenants"
      intro="Each customer is one. You see its terms and how much it uses, and nothing that it stores."
      found={found}
      head={["Name", "State", "Tier", "At once", "Isolation", "Since"]}
      empty={name ? "No tenant has this in its name." : "There are no tenants."}
      below={<Pager of={found} label="tenants" />}
      rows={({ items }) =>
        items.map((each) => ({
          key: each.id,
          cells: [
            <a href={link("tenants", each.id)}>{inline(each.name)}</a>,
            <State of={each.suspended_at ? "suspended" : "active"} />,
            each.tier,
            each.max_concurrency ?? "the tier's",
            each.required_isolation ?? "any",
            <Time at={each.created_at} />,
          ],
        }))
      }
      made={{
        title: "Make a tenant",
        fields: (
          <>
            <Input
              label="Name"
              name="name"
              required
              pattern="[a-z0-9][a-z0-9\-]{0,62}"
              hint="Small letters, digits and hyphens. It cannot be changed."
            />
            <Choice label="Tier" name="tier" options={TIERS} first="free" />
          </>
        ),
        make: async ({ name, tier }) =>
          (await api.send<{ token: string }>("POST", "/operator/v1/tenants", { name, tier })).token,
      }}
    >
      <Form
        label="Search"
        button="Search"
        busy={false}
        problem={null}
        sent={({ part }) => go(`${link("tenants")}${part ? `?name=${encodeURIComponent(part)}` : ""}`)}
      >
        <Input key={name} label="Part of the name" name="part" maxLength={63} defaultValue={name} />
      </Form>
    </Collection>
  );
}
