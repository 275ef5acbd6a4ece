// Pages of small things that people make, list and remove: secrets, keys, members, projects.
import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import type { Problem } from "../api";
import { useAction, type Loaded } from "../hooks";
import { Asking, Form, Loading, Notice, Page, Section, Table, type Row } from "./common";

interface Made {
  title: string;
  fields: ComponentChildren;
  /** Resolves to what is shown once, such as a token, or to nothing. */
  make: (values: Record<string, string>) => Promise<string | void>;
}

export function Collection<T>(given: {
  title: string;
  intro: string;
  found: Loaded<T>;
  head: string[];
  empty: string;
  rows: (data: T, removing: Removing) => Row[];
  made: Made | null;
  /** What follows the list, such as the way to its other pages. */
  below?: ComponentChildren;
  children?: ComponentChildren;
}): JSX.Element {
  const [told, setTold] = useState<string | null>(null);
  const making = useAction(async (values: Record<string, string>) => {
    setTold(null);
    setTold((await given.made?.make(values)) ?? null);
    given.found.reload();
  });
  const removing = useAction(async (remove: () => Promise<unknown>) => {
    await remove();
    given.found.reload();
  });
  return (
    <Page title={given.title}>
      <p class="quiet">{given.intro}</p>
      {given.children}
      {told && <Once text={told} />}
      <Section title={`All ${given.title.toLowerCase()}`}>
        <Notice problem={removing.problem} />
        <Loading of={given.found}>
          {(data) => (
            <Table
              label={given.title}
              head={given.head}
              empty={given.empty}
              rows={given.rows(data, removing)}
            />
          )}
        </Loading>
        {given.below}
      </Section>
      {given.made && (
        <Section title={given.made.title}>
          <Form
            label={given.made.title}
            button={given.made.title}
            busy={making.busy}
            problem={making.problem}
            sent={(values, form) => void making.run(values).then((done) => done && form.reset())}
          >
            <div class="filters">{given.made.fields}</div>
          </Form>
        </Section>
      )}
    </Page>
  );
}

export interface Removing {
  run: (remove: () => Promise<unknown>) => Promise<boolean>;
  busy: boolean;
  problem: Problem | null;
}

export function Remove(given: {
  label?: string;
  name: string;
  question: string;
  by: Removing;
  act: () => Promise<unknown>;
}): JSX.Element {
  const label = given.label ?? "Remove";
  return (
    <Asking
      label={label}
      name={`${label} ${given.name}`}
      question={given.question}
      act={() => given.by.run(given.act)}
    />
  );
}

/** A secret that the API tells only once. It stays on the page until somebody leaves it. */
export function Once({ text }: { text: string }): JSX.Element {
  return (
    <div class="notice" role="status">
      <p>Shown only once. Copy it now:</p>
      <code class="once" tabIndex={0}>
        {text}
      </code>
    </div>
  );
}
