// The pieces that all pages are made of.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Problem } from "../api";
import type { Loaded } from "../hooks";
import { inline, words } from "../text";

export const NAME = "Agent Runner";

export function Page(given: {
  title: string;
  actions?: ComponentChildren;
  children?: ComponentChildren;
}): JSX.Element {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${given.title} · ${NAME}`;
    // So a screen reader reads the new page, and the next tab goes into it.
    heading.current?.focus();
  }, [given.title]);
  return (
    <>
      <header class="head">
        <h1 ref={heading} tabIndex={-1}>
          {given.title}
        </h1>
        <div class="actions">{given.actions}</div>
      </header>
      {given.children}
    </>
  );
}

export function Section(given: {
  title: string;
  actions?: ComponentChildren;
  children?: ComponentChildren;
}): JSX.Element {
  const id = useId();
  return (
    <section class="card" aria-labelledby={id}>
      <header class="head">
        <h2 id={id}>{given.title}</h2>
        <div class="actions">{given.actions}</div>
      </header>
      {given.children}
    </section>
  );
}

export function Notice({ problem }: { problem: Problem | null }): JSX.Element | null {
  if (!problem) return null;
  return (
    <div class="notice bad" role="alert">
      <p>{inline(problem.message)}</p>
      {problem.fields.length > 0 && (
        <ul>
          {problem.fields.map((each) => (
            <li key={each.field}>
              <code>{inline(each.field)}</code>: {inline(each.message)}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

/** What was loaded, or that it is being loaded, or why it could not be. */
export function Loading<T>(given: {
  of: Loaded<T>;
  children: (data: T) => ComponentChildren;
}): JSX.Element {
  const { data, problem, loading } = given.of;
  return (
    <>
      <Notice problem={problem} />
      {data !== null ? given.children(data) : loading && <p class="quiet">Loading …</p>}
    </>
  );
}

const GOOD = new Set(["succeeded", "running", "ready", "active", "allowed", "success", "valid", "ok"]);
const BAD = new Set([
  "failed", "timed_out", "out_of_memory", "output_limit_exceeded", "system_error", "denied",
  "failure", "away", "revoked", "broken", "suspended", "unavailable",
]); // prettier-ignore

/** A state as a word; its colour only repeats the word. */
export function State({ of }: { of: string }): JSX.Element {
  const kind = GOOD.has(of) ? "good" : BAD.has(of) ? "bad" : "";
  return <span class={`state ${kind}`}>{words(inline(of))}</span>;
}

export function Time({ at }: { at: string | null | undefined }): JSX.Element {
  if (!at) return <>–</>;
  return (
    <time dateTime={at} title={at}>
      {new Date(at).toLocaleString("sv")}
    </time>
  );
}

export function Facts({ of }: { of: [string, ComponentChildren][] }): JSX.Element {
  return (
    <dl class="facts">
      {of.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value ?? "–"}</dd>
        </div>
      ))}
    </dl>
  );
}

export interface Row {
  key: string | number;
  cells: ComponentChildren[];
}

export function Table(given: {
  label: string;
  head: string[];
  rows: Row[];
  empty: string;
}): JSX.Element {
  if (!given.rows.length) return <p class="quiet">{given.empty}</p>;
  return (
    // Narrow windows scroll it sideways, which needs the focus to work by keyboard.
    <div class="scroll" role="region" aria-label={given.label} tabIndex={0}>
      <table>
        <thead>
          <tr>
            {given.head.map((name) => (
              <th key={name} scope="col">
                {name || <span class="unseen">Actions</span>}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {given.rows.map((row) => (
            <tr key={row.key}>
              {row.cells.map((cell, number) => (
                <td key={number}>{cell}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** A button for what cannot be undone: it asks first. */
export function Asking(given: {
  label: string;
  question: string;
  act: () => Promise<unknown>;
  name?: string;
}): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState(false);
  const id = useId();
  const confirmed = async (): Promise<void> => {
    setBusy(true);
    await given.act();
    setBusy(false);
    dialog.current?.close();
  };
  return (
    <>
      <button
        type="button"
        class="danger"
        aria-label={given.name ?? given.label}
        onClick={() => dialog.current?.showModal()}
      >
        {given.label}
      </button>
      <dialog ref={dialog} aria-labelledby={id}>
        <p id={id}>{given.question}</p>
        <div class="actions">
          <button type="button" onClick={() => dialog.current?.close()}>
            Keep it
          </button>
          <button type="button" class="danger" disabled={busy} onClick={() => void confirmed()}>
            {given.label}
          </button>
        </div>
      </dialog>
    </>
  );
}

export function Field(given: {
  label: string;
  hint?: string;
  children: (id: string) => ComponentChildren;
}): JSX.Element {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{given.label}</label>
      {given.children(id)}
      {given.hint && <p class="hint">{given.hint}</p>}
    </div>
  );
}

export function Input(
  given: { label: string; name: string; hint?: string } & JSX.IntrinsicElements["input"],
): JSX.Element {
  const { label, hint, ...rest } = given;
  return (
    <Field label={label} {...(hint ? { hint } : {})}>
      {(id) => <input id={id} {...rest} />}
    </Field>
  );
}

/** A choice that a form sends, which begins as `first`; or one that acts at once, by `changed`. */
export function Choice(given: {
  label: string;
  name: string;
  options: readonly (string | [string, string])[];
  first?: string;
  value?: string;
  changed?: (value: string) => void;
}): JSX.Element {
  const { changed } = given;
  return (
    <Field label={given.label}>
      {(id) => (
        <select
          id={id}
          name={given.name}
          // Preact would take a value that is given back to it with each change elsewhere.
          {...(changed
            ? { value: given.value ?? "", onChange: (event) => changed(event.currentTarget.value) }
            : {})}
        >
          {given.options.map((each) => {
            const [value, label] = typeof each === "string" ? [each, words(each)] : each;
            return (
              <option key={value} value={value} selected={!changed && value === given.first}>
                {label}
              </option>
            );
          })}
        </select>
      )}
    </Field>
  );
}

/** A form whose fields reach `sent` by their names. */
export function Form(given: {
  label: string;
  button: string;
  busy: boolean;
  problem: Problem | null;
  sent: (values: Record<string, string>, form: HTMLFormElement) => void;
  children: ComponentChildren;
}): JSX.Element {
  return (
    <form
      aria-label={given.label}
      onSubmit={(event) => {
        event.preventDefault();
        const form = event.currentTarget;
        const values: Record<string, string> = {};
        for (const [name, value] of new FormData(form)) values[name] = String(value);
        given.sent(values, form);
      }}
    >
      {given.children}
      <Notice problem={given.problem} />
      <div class="actions">
        <button type="submit" class="main" disabled={given.busy}>
          {given.button}
        </button>
      </div>
    </form>
  );
}
