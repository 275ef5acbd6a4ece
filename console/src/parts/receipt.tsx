// A receipt, and its check in the browser: Ed25519 over canonical JSON (RFC 8032, RFC 8785).
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { Problem } from "../api";
import { useAction } from "../hooks";
import { useSession } from "../session";
import { plain } from "../text";
import { Notice } from "./common";
import { fromBase64 } from "./output";

interface Signed {
  type: string;
  body: Record<string, unknown>;
  key: string;
  signature: string;
}

interface Key {
  id: string;
  pem: string;
}

export function Receipt({ address, name }: { address: string; name: string }): JSX.Element {
  const { api } = useSession();
  const [text, setText] = useState<string | null>(null);
  const [verdict, setVerdict] = useState<{ good: boolean; what: string } | null>(null);
  const reading = useAction(async () => {
    const document = await api.text(address);
    setText(document);
    const { items } = await api.get<{ items: Key[] }>("/v1/signing-keys");
    setVerdict(await check(document, items));
  });
  return (
    <>
      <p>
        The worker signed what ran, under which limits, and how it ended. Reading it is recorded in the
        audit log.
      </p>
      <div class="actions">
        <button type="button" disabled={reading.busy} onClick={() => void reading.run()}>
          Read and check
        </button>
        <a class="button" href={address} download={name}>
          Download
        </a>
      </div>
      <Notice problem={reading.problem} />
      {verdict && (
        <p class={verdict.good ? "notice good" : "notice bad"} role="status">
          {verdict.what}
        </p>
      )}
      {text && (
        <pre class="output" tabIndex={0} aria-label="Receipt">
          {plain(JSON.stringify(JSON.parse(text), null, 2))}
        </pre>
      )}
    </>
  );
}

export async function check(text: string, keys: Key[]): Promise<{ good: boolean; what: string }> {
  const { signature, ...rest } = JSON.parse(text) as Signed;
  const key = keys.find((each) => each.id === rest.key);
  if (!key) return { good: false, what: `Not valid: nobody here trusts the key ${rest.key}.` };
  if (!globalThis.crypto?.subtle) {
    throw new Problem(0, "this browser checks signatures only over HTTPS or on this host");
  }
  const der = fromBase64(key.pem.replace(/-----[^-]+-----|\s/g, ""));
  const valid = await crypto.subtle.verify(
    "Ed25519",
    await crypto.subtle.importKey("spki", der as BufferSource, "Ed25519", false, ["verify"]),
    fromBase64(signature) as BufferSource,
    new TextEncoder().encode(canonical(rest)),
  );
  return valid
    ? {
        good: true,
        what:
          `Valid: signed by key ${key.id}, and unchanged since. The key comes from this deployment; ` +
          "with a key that you keep elsewhere, `runner receipt verify` checks it offline.",
      }
    : { good: false, what: "Not valid: the signature does not fit. Something was changed." };
}

/** Canonical JSON: names in the order of their UTF-16 code units, numbers as ECMAScript has them. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const given = value as Record<string, unknown>;
  const fields = Object.keys(given)
    .sort()
    .map((name) => `${JSON.stringify(name)}:${canonical(given[name])}`);
  return `{${fields.join(",")}}`;
}
