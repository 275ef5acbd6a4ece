import type { JSX } from "preact";
import { useLoad } from "../hooks";
import { Loading, Page, Section } from "../parts/common";
import { Quotas } from "../parts/quotas";
import { link } from "../router";
import { useSession } from "../session";
import type { Cursored } from "../parts/pages";
import type { ExecutionView, UsageReport } from "../views";
import { ExecutionTable } from "./executions";

export function Overview(): JSX.Element {
  const { api, me, can } = useSession();
  const usage = useLoad((signal) => api.get<UsageReport>("/v1/usage", {}, signal), "usage");
  const latest = useLoad(
    (signal) => api.get<Cursored<ExecutionView>>("/v1/executions", { limit: 8 }, signal),
    "latest",
  );
  return (
    <Page title="Overview">
      <Section title="Today">
        <Loading of={usage}>{(report) => <Quotas of={report.quotas} />}</Loading>
      </Section>
      <Section
        title="Latest executions"
        actions={<a href={link("executions")}>All executions</a>}
      >
        <Loading of={latest}>{(page) => <ExecutionTable items={page.items} />}</Loading>
      </Section>
      <p class="quiet">
        You are {can("member:write") ? "an administrator" : `a ${me.role}`} here. Pages and buttons
        that your role does not permit are not shown.
      </p>
    </Page>
  );
}
