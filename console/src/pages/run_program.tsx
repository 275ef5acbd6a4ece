import type { JSX } from "preact";
import { useAction } from "../hooks";
import { Choice, Field, Form, Input, Page } from "../parts/common";
import { go, link } from "../router";
import { useSession } from "../session";
import type { ExecutionView } from "../views";

export function RunProgram(): JSX.Element {
  const { api } = useSession();
  const running = useAction(async (values: Record<string, string>) => {
    const { language, code, size, image, project, egress_policy } = values;
    const made = await api.send<ExecutionView>("POST", "/v1/executions", {
      language,
      code,
      ...(size ? { size } : {}),
      ...(image ? { image } : {}),
      ...(project ? { project } : {}),
      ...(egress_policy ? { egress_policy } : {}),
    });
    go(link("executions", made.id));
  });
  return (
    <Page title="Run a program">
      <section class="card">
        <Form
          label="Run a program"
          button="Run"
          busy={running.busy}
          problem={running.problem}
          sent={(values) => void running.run(values)}
        >
          <Choice label="Language" name="language" options={["python", "bash", "javascript", "typescript"]} first="python" />
          <Field label="Code">
            {(id) => <textarea id={id} name="code" rows={12} spellcheck={false} required class="code" />}
          </Field>
          <div class="filters">
            <Input label="Size" name="size" placeholder="small" />
            <Input label="Image" name="image" placeholder="the deployment's first" />
            <Input label="Project" name="project" />
            <Input label="Egress policy" name="egress_policy" placeholder="none: no network" />
          </div>
        </Form>
      </section>
    </Page>
  );
}
