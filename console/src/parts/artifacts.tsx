// Files of strangers, shown without believing them: an image is decoded as an image, and everything
// else is text. HTML and SVG are text, too.
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { useLoad } from "../hooks";
import { useSession } from "../session";
import { bytes, inline, plain } from "../text";
import type { Artifact } from "../views";
import { Loading, Notice, Table } from "./common";
import { read as readTable } from "./tables";

const MOST_BYTES = 4 * 2 ** 20;
const MOST_TEXT = 256 * 1024;
const DEEPEST = 50;
const IMAGES: Record<string, string> = {
  png: "image/png",
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  gif: "image/gif",
  webp: "image/webp",
};

export function Artifacts(given: {
  of: Artifact[];
  refused: string[];
  address: (name: string) => string;
}): JSX.Element {
  const [shown, setShown] = useState<Artifact | null>(null);
  return (
    <>
      <Table
        label="Artifacts"
        head={["File", "Size", "SHA-256", ""]}
        empty="The program left no files."
        rows={given.of.map((each) => ({
          key: each.path,
          cells: [
            <code>{inline(each.path)}</code>,
            bytes(each.size),
            <code title={each.sha256}>{each.sha256.slice(0, 12)}…</code>,
            <span class="actions">
              {each.size <= MOST_BYTES && (
                <button
                  type="button"
                  aria-label={`Show ${inline(each.path)}`}
                  onClick={() => setShown(each)}
                >
                  Show
                </button>
              )}
              <a
                class="button"
                href={given.address(each.path)}
                download=""
                aria-label={`Download ${inline(each.path)}`}
              >
                Download
              </a>
            </span>,
          ],
        }))}
      />
      {given.refused.map((each) => (
        <p key={each} class="hint">
          Not kept: {inline(each)}
        </p>
      ))}
      {shown && <Shown key={shown.path} name={shown.path} address={given.address(shown.path)} />}
    </>
  );
}

/** One file's content, as its name suggests and its bytes permit. */
export function Shown({ name, address }: { name: string; address: string }): JSX.Element {
  const { api } = useSession();
  const found = useLoad(() => api.blob(address), address);
  return (
    <figure class="shown">
      <figcaption>
        <code>{inline(name)}</code>
      </figcaption>
      <Loading of={found}>{(blob) => <Content name={name} blob={blob} />}</Loading>
    </figure>
  );
}

function Content({ name, blob }: { name: string; blob: Blob }): JSX.Element {
  const ending = name.slice(name.lastIndexOf(".") + 1).toLowerCase();
  const image = IMAGES[ending];
  return image ? <Picture name={name} blob={blob} type={image} /> : <Text ending={ending} blob={blob} />;
}

function Picture({ name, blob, type }: { name: string; blob: Blob; type: string }): JSX.Element {
  const [address, setAddress] = useState<string | null>(null);
  const [broken, setBroken] = useState(false);
  useEffect(() => {
    const made = URL.createObjectURL(new Blob([blob], { type }));
    setAddress(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  if (broken) return <p class="quiet">This is not an image that the browser can read.</p>;
  return address ? (
    <img src={address} alt={`The image ${inline(name)}`} onError={() => setBroken(true)} />
  ) : (
    <></>
  );
}

function Text({ ending, blob }: { ending: string; blob: Blob }): JSX.Element {
  const found = useLoad(() => blob.slice(0, MOST_TEXT).text(), `${ending} ${blob.size}`);
  const cut = blob.size > MOST_TEXT;
  if (found.problem) return <Notice problem={found.problem} />;
  const text = found.data ?? "";
  const table = ending === "csv" || ending === "tsv" ? readTable(text, ending) : null;
  return (
    <>
      {cut && <p class="hint">Only the first {bytes(MOST_TEXT)} are shown. Download it for the rest.</p>}
      {table ? (
        <Table
          label="Content"
          head={table.head.map((each) => inline(each) || " ")}
          empty="The table has no rows."
          rows={table.rows.map((cells, key) => ({ key, cells: cells.map(inline) }))}
        />
      ) : (
        <pre class="output" tabIndex={0} aria-label="Content">
          {plain(ending === "json" && !cut ? indented(text) : text)}
        </pre>
      )}
      {table && table.more > 0 && <p class="hint">{table.more} further rows are not shown.</p>}
    </>
  );
}

/** JSON with a line for each value, unless it is nested so deeply that 10 KB would become 50 MB. */
function indented(text: string): string {
  try {
    return depth(text) > DEEPEST ? text : JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function depth(text: string): number {
  let now = 0;
  let most = 0;
  for (const each of text.replace(/"(?:[^"\\]|\\.)*"/g, "")) {
    if (each === "[" || each === "{") most = Math.max(most, (now += 1));
    else if (each === "]" || each === "}") now -= 1;
  }
  return most;
}
