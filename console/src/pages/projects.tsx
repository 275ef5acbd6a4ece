import type { JSX } from "preact";
import { path } from "../api";
import { Collection, Remove } from "../parts/collection";
import { Input, Time } from "../parts/common";
import { Pager, usePages } from "../parts/pages";
import { link } from "../router";
import { useSession } from "../session";
import { inline } from "../text";

interface Project {
  name: string;
  description: string;
  egress_policy: string | null;
  created_at: string;
}

export function Projects(): JSX.Element {
  const { api, can } = useSession();
  const found = usePages<Project>("/v1/projects", {});
  return (
    <Collection
      title="Projects"
      intro="Executions and sandboxes may belong to one, and then have its egress policy unless they name another."
      found={found}
      head={["Name", "Description", "Egress policy", "Created", ""]}
      empty="There are no projects."
      below={<Pager of={found} label="projects" />}
      rows={({ items }, removing) =>
        items.map((each) => ({
          key: each.name,
          cells: [
            <a href={`${link("executions")}?project=${encodeURIComponent(each.name)}`}>
              {inline(each.name)}
            </a>,
            inline(each.description),
            each.egress_policy ? inline(each.egress_policy) : "–",
            <Time at={each.created_at} />,
            can("project:delete") && (
              <Remove
                name={inline(each.name)}
                question={`Remove the project ${inline(each.name)}? Its executions stay.`}
                by={removing}
                act={() => api.send("DELETE", path`/v1/projects/${each.name}`)}
              />
            ),
          ],
        }))
      }
      made={
        can("project:write")
          ? {
              title: "Make a project",
              fields: (
                <>
                  <Input label="Name" name="name" required />
                  <Input label="Description" name="description" />
                  <Input label="Egress policy" name="policy" />
                </>
              ),
              make: async ({ name, description, policy }) => {
                const body = { name, description, ...(policy ? { egress_policy: policy } : {}) };
                await api.send("POST", "/v1/projects", body);
              },
            }
          : null
      }
    />
  );
}
