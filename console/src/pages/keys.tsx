import type { JSX } from "preact";
import { path } from "../api";
import { Collection, Remove } from "../parts/collection";
import { Choice, Input, State, Time } from "../parts/common";
import { Pager, usePages } from "../parts/pages";
import { useSession } from "../session";
import { inline } from "../text";
import { ROLES } from "./members";

interface Key {
  id: string;
  prefix: string;
  name: string;
  role: string;
  created_by: string;
  created_at: string;
  expires_at: string | null;
  revoked_at: string | null;
  last_used_at: string | null;
}

export function Keys(): JSX.Element {
  const { api, can } = useSession();
  const found = usePages<Key>("/v1/keys", {});
  const writes = can("api_key:write");
  return (
    <Collection
      title="API keys"
      intro="Programs call the API with them. A key acts with its role; the audit log names it by its prefix."
      found={found}
      head={["Key", "Name", "Role", "State", "Made by", "Created", "Last used", "Expires", ""]}
      empty="There are no keys."
      below={<Pager of={found} label="keys" />}
      rows={({ items }, removing) =>
        items.map((each) => ({
          key: each.id,
          cells: [
            <code>{inline(each.prefix)}</code>,
            inline(each.name),
            each.role,
            <State of={each.revoked_at ? "revoked" : "active"} />,
            inline(each.created_by),
            <Time at={each.created_at} />,
            <Time at={each.last_used_at} />,
            <Time at={each.expires_at} />,
            writes && !each.revoked_at && (
              <Remove
                label="Revoke"
                name={inline(each.name)}
                question={`Revoke the key ${inline(each.name)}? What uses it stops working at once.`}
                by={removing}
                act={() => api.send("DELETE", path`/v1/keys/${each.id}`)}
              />
            ),
          ],
        }))
      }
      made={
        writes
          ? {
              title: "Make a key",
              fields: (
                <>
                  <Input label="Name" name="name" required />
                  <Choice label="Role" name="role" options={ROLES} first="developer" />
                  <Input label="Expires (date)" name="expires" type="date" />
                </>
              ),
              make: async ({ name, role, expires }) => {
                const body = { name, role, ...(expires ? { expires_at: `${expires}T00:00:00Z` } : {}) };
                return (await api.send<{ token: string }>("POST", "/v1/keys", body)).token;
              },
            }
          : null
      }
    />
  );
}
