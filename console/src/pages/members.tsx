import type { JSX } from "preact";
import { path } from "../api";
import { useAction, useLoad } from "../hooks";
import { Collection, Remove } from "../parts/collection";
import { Choice, Input, Notice, State, Time } from "../parts/common";
import { useSession } from "../session";
import { inline } from "../text";

export const ROLES = ["viewer", "developer", "admin", "owner"];

interface Member {
  id: string;
  email: string;
  role: string;
  status: "active" | "invited";
  created_by: string;
  created_at: string;
  expires_at: string | null;
}

export function Members(): JSX.Element {
  const { api, can, me } = useSession();
  const found = useLoad((signal) => api.get<{ items: Member[] }>("/v1/members", {}, signal), "");
  const changing = useAction(async (id: string, role: string) => {
    await api.send("PATCH", path`/v1/members/${id}`, { role });
    found.reload();
  });
  const writes = can("member:write");
  return (
    <Collection
      title="Members"
      intro="People of this tenant, and invitations that wait. You can manage whoever ranks below you."
      found={found}
      head={["E-mail", "Role", "Status", "Since", "Expires", ""]}
      empty="Nobody belongs to this tenant."
      rows={({ items }, removing) =>
        items.map((each) => ({
          key: each.id,
          cells: [
            inline(each.email),
            writes && each.status === "active" && each.email !== me.email ? (
              <select
                aria-label={`Role of ${inline(each.email)}`}
                value={each.role}
                onChange={(event) => void changing.run(each.id, event.currentTarget.value)}
              >
                {ROLES.map((role) => (
                  <option key={role} value={role}>
                    {role}
                  </option>
                ))}
              </select>
            ) : (
              each.role
            ),
            <State of={each.status} />,
            <Time at={each.created_at} />,
            <Time at={each.expires_at} />,
            writes && (
              <Remove
                name={inline(each.email)}
                question={`Remove ${inline(each.email)}? Their sessions and keys end at once.`}
                by={removing}
                act={() => api.send("DELETE", path`/v1/members/${each.id}`)}
              />
            ),
          ],
        }))
      }
      made={
        writes
          ? {
              title: "Invite somebody",
              fields: (
                <>
                  <Input label="E-mail" name="email" type="email" required />
                  <Choice label="Role" name="role" options={ROLES} first="developer" />
                </>
              ),
              make: async ({ email, role }) =>
                (await api.send<{ token: string }>("POST", "/v1/members", { email, role })).token,
            }
          : null
      }
    >
      <Notice problem={changing.problem} />
    </Collection>
  );
}
