import type { JSX } from "preact";
import { Page } from "../parts/common";
import { UsageReported } from "../parts/usage";

export function Usage(): JSX.Element {
  return (
    <Page title="Usage">
      <UsageReported address="/v1/usage" />
    </Page>
  );
}
