// The files of a sandbox that lives: folders, content as text or image, upload, removal.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { path, withQuery } from "../api";
import { useAction, useLoad } from "../hooks";
import { link } from "../router";
import { useSession } from "../session";
import { bytes, inline } from "../text";
import { Shown } from "./artifacts";
import { Asking, Form, Input, Loading, Notice, Section, Table, Time } from "./common";

const MOST_SHOWN = 4 * 2 ** 20;

interface Entry {
  path: string;
  kind: "file" | "folder" | "link" | "other";
  size: number;
  mode: string;
  modified_at: string;
  target: string | null;
}

export function Files({ sandbox, folder }: { sandbox: string; folder: string }): JSX.Element {
  const { api } = useSession();
  const [shown, setShown] = useState<string | null>(null);
  const files = path`/v1/sandboxes/${sandbox}/files`;
  const found = useLoad(
    (signal) => api.get<{ items: Entry[]; more: boolean }>(files, { path: folder, limit: 1000 }, signal),
    `${sandbox} ${folder}`,
  );
  const removing = useAction(async (name: string, kind: string) => {
    await api.send("DELETE", withQuery(files, { path: name, recursive: kind === "folder" }));
    found.reload();
  });
  const storing = useAction(async (form: HTMLFormElement) => {
    const chosen = new FormData(form).get("file");
    if (!(chosen instanceof File)) return;
    const target = `${folder.replace(/\/$/, "")}/${chosen.name}`;
    await api.send("PUT", withQuery(`${files}/content`, { path: target }), new Blob([chosen]));
    form.reset();
    found.reload();
  });
  const content = (name: string): string => withQuery(`${files}/content`, { path: name });
  const here = (name: string): string => link("sandboxes", sandbox, "files", name);
  return (
    <Section title="Files" actions={<Way folder={folder} here={here} />}>
      <Notice problem={removing.problem} />
      <Loading of={found}>
        {({ items, more }) => (
          <>
            <Table
              label="Files"
              head={["Name", "Kind", "Size", "Mode", "Changed", ""]}
              empty="The folder is empty."
              rows={items.map((each) => {
                const name = each.path.slice(each.path.lastIndexOf("/") + 1);
                return {
                  key: each.path,
                  cells: [
                    each.kind === "folder" ? (
                      <a href={here(each.path)}>{inline(name)}/</a>
                    ) : (
                      <code>
                        {inline(name)}
                        {each.target !== null && ` → ${inline(each.target)}`}
                      </code>
                    ),
                    each.kind,
                    each.kind === "file" ? bytes(each.size) : "–",
                    <code>{each.mode}</code>,
                    <Time at={each.modified_at} />,
                    <span class="actions">
                      {each.kind === "file" && each.size <= MOST_SHOWN && (
                        <button
                          type="button"
                          aria-label={`Show ${inline(name)}`}
                          onClick={() => setShown(each.path)}
                        >
                          Show
                        </button>
                      )}
                      {each.kind === "file" && (
                        <a
                          class="button"
                          href={content(each.path)}
                          download={name}
                          aria-label={`Download ${inline(name)}`}
                        >
                          Download
                        </a>
                      )}
                      <Asking
                        label="Remove"
                        name={`Remove ${inline(name)}`}
                        question={`Remove ${inline(each.path)}${each.kind === "folder" ? " with all that is in it" : ""}?`}
                        act={() => removing.run(each.path, each.kind)}
                      />
                    </span>,
                  ],
                };
              })}
            />
            {more && <p class="hint">There are more files than a page shows.</p>}
          </>
        )}
      </Loading>
      <Form
        label="Store a file here"
        button="Store"
        busy={storing.busy}
        problem={storing.problem}
        sent={(_, form) => void storing.run(form)}
      >
        <Input label="Store a file here" name="file" type="file" required />
      </Form>
      {shown && <Shown key={shown} name={shown} address={content(shown)} />}
    </Section>
  );
}

/** The folder's name, each part of which leads there. */
function Way({ folder, here }: { folder: string; here: (name: string) => string }): JSX.Element {
  const names = folder.split("/").filter(Boolean);
  return (
    <nav aria-label="Folder" class="way">
      <a href={here("/")}>/</a>
      {names.map((name, at) => (
        <a key={at} href={here(`/${names.slice(0, at + 1).join("/")}`)}>
          {inline(name)}/
        </a>
      ))}
    </nav>
  );
}
