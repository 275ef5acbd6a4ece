import type { JSX } from "preact";
import type { Action } from "../hooks";
import { Choice, Field, Form, Input } from "../parts/common";
import { TIERS, type TenantView } from "./views";

export function Terms(given: {
  of: TenantView;
  by: Action<[Record<string, unknown>]>;
}): JSX.Element {
  const { of, by } = given;
  return (
    <Form
      label="Change the terms"
      button="Change"
      busy={by.busy}
      problem={by.problem}
      sent={(values) => void by.run(changed(values))}
    >
      <div class="filters">
        <Choice label="Tier" name="tier" options={TIERS} first={of.tier} />
        <Input
          label="Executions at once"
          name="max_concurrency"
          type="number"
          min={1}
          max={100_000}
          defaultValue={of.max_concurrency ?? ""}
          hint="Empty: the tier's number."
        />
        <Input label="Largest size" name="max_size" placeholder="as it is" hint="Empty: as it is." />
        <Choice
          label="Isolation"
          name="required_isolation"
          options={[
            ["", "any"],
            ["gvisor", "gvisor"],
          ]}
          first={of.required_isolation ?? ""}
        />
        <Input
          label="Days that executions are kept"
          name="retention_days"
          type="number"
          min={1}
          max={36_500}
          defaultValue={of.retention_days ?? ""}
          hint="Empty: as the deployment has set."
        />
        <Choice
          label="Reuse of sandboxes"
          name="reuse"
          options={[
            ["false", "not permitted"],
            ["true", "permitted"],
          ]}
          first={String(of.reuse)}
        />
      </div>
      <Field label="Own quotas" hint="Each on a line, as queued=500. Without one, the tier's holds.">
        {(id) => (
          <textarea
            id={id}
            name="quotas"
            class="code"
            rows={3}
            spellcheck={false}
            defaultValue={Object.entries(of.quotas)
              .map(([name, value]) => `${name}=${value}`)
              .join("\n")}
          />
        )}
      </Field>
    </Form>
  );
}

/** The terms as the API takes them. */
function changed(values: Record<string, string>): Record<string, unknown> {
  const { tier, max_concurrency, max_size, required_isolation, retention_days, reuse } = values;
  return {
    tier,
    max_concurrency: max_concurrency ? Number(max_concurrency) : null,
    ...(max_size ? { max_size } : {}),
    required_isolation: required_isolation || null,
    retention_days: retention_days ? Number(retention_days) : null,
    reuse: reuse === "true",
    quotas: quotas(values["quotas"] ?? ""),
  };
}

function quotas(text: string): Record<string, string | number> {
  const lines = text.split("\n").map((each) => each.trim()).filter(Boolean);
  return Object.fromEntries(
    lines.map((line) => {
      const [name = "", value = ""] = line.split("=", 2).map((each) => each.trim());
      return [name, /^\d+$/.test(value) ? Number(value) : value];
    }),
  );
}
