import type { JSX } from "preact";
import { path } from "../api";
import { useLoad } from "../hooks";
import { Collection, Remove } from "../parts/collection";
import { Input, Time } from "../parts/common";
import { useSession } from "../session";
import { inline } from "../text";

interface Secret {
  name: string;
  created_at: string;
  updated_at: string;
}

export function Secrets(): JSX.Element {
  const { api, can } = useSession();
  const found = useLoad((signal) => api.get<{ items: Secret[] }>("/v1/secrets", {}, signal), "");
  const writes = can("secret:write");
  return (
    <Collection
      title="Secrets"
      intro="Programs use them by name. Nobody can read a value again, not even here."
      found={found}
      head={["Name", "Created", "Changed", ""]}
      empty="There are no secrets."
      rows={({ items }, removing) =>
        items.map((each) => ({
          key: each.name,
          cells: [
            <code>{inline(each.name)}</code>,
            <Time at={each.created_at} />,
            <Time at={each.updated_at} />,
            writes && (
              <Remove
                name={inline(each.name)}
                question={`Remove the secret ${inline(each.name)}? What uses it will fail.`}
                by={removing}
                act={() => api.send("DELETE", path`/v1/secrets/${each.name}`)}
              />
            ),
          ],
        }))
      }
      made={
        writes
          ? {
              title: "Store a secret",
              fields: (
                <>
                  <Input label="Name" name="name" required autoComplete="off" />
                  <Input
                    label="Value"
                    name="value"
                    type="password"
                    required
                    autoComplete="off"
                    hint="Replaces the value of a secret that has this name."
                  />
                </>
              ),
              make: async ({ name = "", value }) => {
                await api.send("PUT", path`/v1/secrets/${name}`, { value });
              },
            }
          : null
      }
    />
  );
}
