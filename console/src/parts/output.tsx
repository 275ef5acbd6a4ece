// A program's output as text. Whatever it holds, the browser reads it as nothing else.
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { count, plain } from "../text";

export interface Piece {
  stream: "stdout" | "stderr" | "note";
  text: string;
  /** The text as it is shown, until more is added to it. */
  shown?: string | undefined;
}

/** Characters that are kept: a page with more is slow, and the API has all of it. */
const MOST = 2 ** 20;
/** Pieces that are kept: a program that writes to both streams in turn makes one of each byte. */
const MOST_PIECES = 2000;

/** Gathers output that comes in pieces, which may end inside a character. */
export class Gathered {
  private decoders = new Map<string, TextDecoder>();
  private list: Piece[] = [];
  private length = 0;
  dropped = 0;

  get pieces(): readonly Piece[] {
    return this.list;
  }

  note(text: string): void {
    this.add({ stream: "note", text });
  }

  write(stream: "stdout" | "stderr", content: string, encoding: string | undefined): void {
    const raw = encoding === "base64" ? fromBase64(content) : new TextEncoder().encode(content);
    let decoder = this.decoders.get(stream);
    if (!decoder) this.decoders.set(stream, (decoder = new TextDecoder()));
    const text = decoder.decode(raw, { stream: true });
    if (text) this.add({ stream, text });
  }

  private add(piece: Piece): void {
    const last = this.list[this.list.length - 1];
    if (last && last.stream === piece.stream && last.text.length < 4096) {
      last.text += piece.text;
      last.shown = undefined;
    } else this.list.push(piece);
    this.length += piece.text.length;
    while (this.list.length > 1 && (this.length > MOST || this.list.length > MOST_PIECES)) {
      const gone = this.list.shift()?.text.length ?? 0;
      this.length -= gone;
      this.dropped += gone;
    }
  }
}

export function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
}

/** Shows what was gathered, and stays at its end unless somebody scrolls up. */
export function Output(given: { of: Gathered; label: string; turn: number }): JSX.Element {
  const box = useRef<HTMLPreElement>(null);
  const atEnd = useRef(true);
  useEffect(() => {
    if (atEnd.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [given.turn]);
  const { pieces, dropped } = given.of;
  return (
    <>
      {dropped > 0 && (
        <p class="hint">{count(dropped)} earlier characters are not shown; the API has them.</p>
      )}
      <pre
        ref={box}
        class="output"
        role="log"
        aria-label={given.label}
        aria-live="off"
        tabIndex={0}
        onScroll={({ currentTarget: each }) => {
          atEnd.current = each.scrollHeight - each.scrollTop - each.clientHeight < 40;
        }}
      >
        {pieces.length ? (
          pieces.map((each, number) => (
            <span key={dropped ? undefined : number} class={each.stream}>
              {(each.shown ??= plain(each.text))}
            </span>
          ))
        ) : (
          <span class="note">No output yet.</span>
        )}
      </pre>
    </>
  );
}
