import type { JSX } from "preact";
import { path } from "../api";
import { useLoad } from "../hooks";
import { Collection, Remove } from "../parts/collection";
import { Field, Input, Time } from "../parts/common";
import type { Policy } from "../parts/decisions";
import { useSession } from "../session";
import { inline } from "../text";
import type { Rule } from "../views";

export function Egress(): JSX.Element {
  const { api, can } = useSession();
  const found = useLoad((signal) => api.get<{ items: Policy[] }>("/v1/egress-policies", {}, signal), "");
  const writes = can("egress_policy:write");
  return (
    <Collection
      title="Egress policies"
      intro="What programs may reach that name one of them. Whatever no rule permits is refused; the page of the execution or sandbox shows it."
      found={found}
      head={["Name", "Rules", "Changed", ""]}
      empty="There are no policies: programs reach nothing."
      rows={({ items }, removing) =>
        items.map((each) => ({
          key: each.name,
          cells: [
            <code>{inline(each.name)}</code>,
            <ul class="plain">
              {each.rules.map((rule, at) => (
                <li key={at}>
                  <code>{inline(asText(rule))}</code>
                </li>
              ))}
            </ul>,
            <Time at={each.updated_at} />,
            writes && (
              <Remove
                name={inline(each.name)}
                question={`Remove the policy ${inline(each.name)}?`}
                by={removing}
                act={() => api.send("DELETE", path`/v1/egress-policies/${each.name}`)}
              />
            ),
          ],
        }))
      }
      made={
        writes
          ? {
              title: "Write a policy",
              fields: (
                <>
                  <Input label="Name" name="name" required hint="Replaces the policy that has this name." />
                  <Field label="Rules, one on a line">
                    {(id) => (
                      <textarea
                        id={id}
                        name="rules"
                        rows={4}
                        class="code"
                        placeholder={"files.example.com\nhttp://plain.example.com"}
                      />
                    )}
                  </Field>
                </>
              ),
              make: async ({ name = "", rules = "" }) => {
                const lines = rules.split("\n").map((each) => each.trim());
                await api.send("PUT", path`/v1/egress-policies/${name}`, {
                  rules: lines.filter(Boolean).map(parsed),
                });
              },
            }
          : null
      }
    />
  );
}

/** A line is a rule as the API takes it: a text, or a JSON object. */
function parsed(line: string): unknown {
  return line.startsWith("{") ? JSON.parse(line) : line;
}

function asText(rule: Rule): string {
  const { host, port, scheme, methods, path_prefix, inject } = rule;
  const how = Array.isArray(methods) && methods.length ? `${methods.join(",")} ` : "";
  const secret = inject ? ` with the secret ${(inject as { secret: string }).secret}` : "";
  return `${how}${scheme}://${host}:${port}${path_prefix ?? ""}${secret}`;
}
