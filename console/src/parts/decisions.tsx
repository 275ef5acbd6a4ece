// What the egress proxy decided, and "allow this" for those who may.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { path } from "../api";
import { useAction, useLoad } from "../hooks";
import { useSession } from "../session";
import { bytes, inline, words } from "../text";
import type { Decision, Rule } from "../views";
import { Form, Input, Section, State, Table } from "./common";

export interface Policy {
  name: string;
  rules: Rule[];
  updated_at: string;
}

export function Decisions(given: { of: Decision[]; policy: string | null }): JSX.Element {
  const { can } = useSession();
  const [chosen, setChosen] = useState<Decision | null>(null);
  return (
    <>
      <Table
        label="Decisions of the egress proxy"
        head={["Decision", "Host", "Port", "Why", "Sent", "Received", ""]}
        empty="The program has tried to reach nothing."
        rows={given.of.map((each, number) => ({
          key: number,
          cells: [
            <State of={each.outcome} />,
            <code>{inline(each.host)}</code>,
            each.port,
            each.rule ? `rule ${inline(each.rule)}` : inline(each.detail || words(each.reason)),
            bytes(each.bytes_up),
            bytes(each.bytes_down),
            each.outcome === "denied" && can("egress_policy:write") && (
              <button
                type="button"
                aria-label={`Allow ${inline(each.host)}:${each.port}`}
                onClick={() => setChosen(each)}
              >
                Allow this
              </button>
            ),
          ],
        }))}
      />
      {chosen && (
        <AllowThis
          key={`${chosen.host}:${chosen.port}`}
          decision={chosen}
          policy={given.policy}
          close={() => setChosen(null)}
        />
      )}
    </>
  );
}

/** The rule that would have allowed a refused request. */
export function ruleFor({ host, port, method }: Decision): Rule {
  const scheme = method === "http" ? "http" : port === 443 ? "https" : "tcp";
  return scheme === "tcp" || (scheme === "http" && port !== 80)
    ? { host, port, scheme }
    : { host, scheme };
}

function AllowThis(given: {
  decision: Decision;
  policy: string | null;
  close: () => void;
}): JSX.Element {
  const { api } = useSession();
  const [done, setDone] = useState<string | null>(null);
  const known = useLoad((signal) => api.get<{ items: Policy[] }>("/v1/egress-policies", {}, signal), "");
  const rule = ruleFor(given.decision);
  const allowing = useAction(async ({ name = "" }: Record<string, string>) => {
    const listed = await api.get<{ items: Policy[] }>("/v1/egress-policies");
    const before = listed.items.find((each) => each.name === name)?.rules ?? [];
    await api.send("PUT", path`/v1/egress-policies/${name}`, { rules: [...before, rule] });
    setDone(name);
  });
  return (
    <Section title="Allow this">
      {done ? (
        <p class="notice" role="status">
          The policy {inline(done)} allows it now, for what is submitted from now on with this policy.
        </p>
      ) : (
        <Form
          label="Allow this"
          button="Add the rule"
          busy={allowing.busy}
          problem={allowing.problem}
          sent={(values) => void allowing.run(values)}
        >
          <p>
            The rule <code>{inline(JSON.stringify(rule))}</code> is added to a policy of your tenant.
          </p>
          <Input
            label="Policy"
            name="name"
            required
            defaultValue={given.policy ?? ""}
            list="policies"
            hint="An existing policy, or the name of a new one."
          />
          <datalist id="policies">
            {known.data?.items.map((each) => <option key={each.name} value={each.name} />)}
          </datalist>
        </Form>
      )}
      <button type="button" onClick={given.close}>
        Close
      </button>
    </Section>
  );
}
