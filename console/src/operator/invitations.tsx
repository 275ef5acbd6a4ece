import type { JSX } from "preact";
import { path } from "../api";
import { useLoad } from "../hooks";
import { Collection, Remove } from "../parts/collection";
import { Input, State, Time } from "../parts/common";
import { useApi } from "../session";
import { inline } from "../text";
import type { Invitation } from "./views";

const ADDRESS = "/operator/v1/node-invitations";
const MINUTES = 60;

export function Invitations(): JSX.Element {
  const api = useApi();
  const found = useLoad(
    (signal) => api.get<{ items: Invitation[] }>(ADDRESS, { ended: true }, signal),
    "invitations",
  );
  return (
    <Collection
      title="Invitations"
      intro="A host joins as a node with a token, which works once. Run “runner nodes admit” where the authority's key is, and “runner nodes join” on the host."
      found={found}
      head={["Node", "State", "Made by", "Made", "Expires", "Joined as", ""]}
      empty="Nobody was invited."
      rows={({ items }, removing) =>
        items.map((each) => ({
          key: each.invitation_id,
          cells: [
            inline(each.node),
            <State of={stateOf(each)} />,
            inline(each.made_by),
            <Time at={each.made_at} />,
            <Time at={each.expires_at} />,
            each.used_as ? inline(each.used_as) : "–",
            each.open && (
              <Remove
                label="Revoke"
                name={inline(each.node)}
                question={`Revoke the invitation of ${inline(each.node)}? Its token stops working at once.`}
                by={removing}
                act={() => api.send("DELETE", `${ADDRESS}${path`/${each.invitation_id}`}`)}
              />
            ),
          ],
        }))
      }
      made={{
        title: "Invite a host",
        fields: (
          <>
            <Input
              label="Node"
              name="node"
              required
              pattern="[A-Za-z0-9._\-]{1,63}"
              placeholder="host-2"
              hint="Its RUNNER_NODE; by default, that is its host's name."
            />
            <Input label="Minutes" name="minutes" type="number" min={1} max={1440} defaultValue={MINUTES} />
          </>
        ),
        make: async ({ node, minutes }) => {
          const body = { node, minutes: Number(minutes || MINUTES) };
          return (await api.send<{ token: string }>("POST", ADDRESS, body)).token;
        },
      }}
    />
  );
}

function stateOf(of: Invitation): string {
  if (of.open) return "open";
  if (of.used_at) return "used";
  return of.revoked_at ? "revoked" : "expired";
}
