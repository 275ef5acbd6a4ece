// A terminal of a process in a sandbox, by WebSocket. xterm.js obeys the escapes of what runs there,
// as a terminal must; but nothing of it leaves the terminal: no links, no titles, no clipboard.
import "@xterm/xterm/css/xterm.css";
import { FitAddon } from "@xterm/addon-fit";
import { Terminal as Xterm } from "@xterm/xterm";
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { path, withQuery } from "../api";
import { paused } from "../hooks";
import { withoutInlineStyles } from "./styles";

const NORMAL = 1000;
const FIRST_REFUSAL = 4000;
const LAST_PASSING = 4500;
const PAUSE_MS = 1000;

type Said = { gap: { omitted_bytes: number } } | { exit: { exit_code: number | null; signal: string | null } };

export function Terminal(given: { sandbox: string; process: number }): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const [state, setState] = useState("connecting …");
  useEffect(() => {
    if (!box.current) return;
    const leaving = new AbortController();
    const restore = withoutInlineStyles(document);
    const screen = new Xterm({
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", monospace',
      fontSize: 14,
      cursorBlink: false,
      screenReaderMode: true,
      linkHandler: { activate: () => undefined },
    });
    const fitting = new FitAddon();
    screen.loadAddon(fitting);
    screen.open(box.current);
    fitting.fit();
    const resized = new ResizeObserver(() => fitting.fit());
    resized.observe(box.current);
    // Tab belongs to the program; this is the way out for those who use the keyboard alone.
    screen.attachCustomKeyEventHandler((event) => {
      if (event.key !== "Escape" || !event.shiftKey) return true;
      if (event.type === "keydown") box.current?.nextElementSibling?.querySelector("button")?.focus();
      return false;
    });
    void talk(given, screen, setState, leaving.signal);
    screen.focus();
    return () => {
      leaving.abort();
      resized.disconnect();
      screen.dispose();
      restore();
    };
  }, [given.sandbox, given.process]);
  return (
    <>
      <div ref={box} class="terminal-box" role="group" aria-label="Terminal" />
      <p class="hint actions">
        <span role="status">Process {given.process}: {state}</span>
        <button type="button" onClick={() => box.current?.querySelector("textarea")?.focus()}>
          Type into it
        </button>
        <span>Shift+Escape leaves the terminal.</span>
      </p>
    </>
  );
}

/** Keep a connection to the process until it ends or the page is left. */
async function talk(
  given: { sandbox: string; process: number },
  screen: Xterm,
  say: (state: string) => void,
  signal: AbortSignal,
): Promise<void> {
  let offset = 0;
  let socket: WebSocket | null = null;
  const send = (data: string | Uint8Array): void => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(data as string | BufferSource);
  };
  const size = (): string => JSON.stringify({ resize: { rows: screen.rows, columns: screen.cols } });
  screen.onData((text) => send(new TextEncoder().encode(text)));
  screen.onBinary((text) => send(Uint8Array.from(text, (each) => each.charCodeAt(0))));
  screen.onResize(() => send(size()));
  while (!signal.aborted) {
    const address = path`/v1/sandboxes/${given.sandbox}/processes/${given.process}/terminal`;
    socket = new WebSocket(withQuery(address, { offset }));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      say("connected");
      send(size());
    };
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
      if (typeof data !== "string") {
        offset += data.byteLength;
        screen.write(new Uint8Array(data));
        return;
      }
      const said = JSON.parse(data) as Said;
      if ("gap" in said) {
        offset += said.gap.omitted_bytes;
        screen.write(`\r\n[${said.gap.omitted_bytes} bytes are no longer kept]\r\n`);
      } else say(`ended with ${said.exit.signal ?? `code ${said.exit.exit_code}`}`);
    };
    const { code, reason } = await closed(socket, signal);
    if (signal.aborted || code === NORMAL) return;
    if (code >= FIRST_REFUSAL && code < LAST_PASSING) return say(`closed: ${reason}`);
    say("the connection was lost; trying again …");
    await paused(PAUSE_MS, signal);
  }
}

function closed(socket: WebSocket, signal: AbortSignal): Promise<CloseEvent> {
  signal.addEventListener("abort", () => socket.close());
  return new Promise((resolve) => (socket.onclose = resolve));
}
