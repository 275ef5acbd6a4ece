// The API, as a browser with a session calls it. The browser holds the session's cookie, which no
// script can read; this holds the token that proves that a change comes from our own pages.

import type { Presence } from "./presence";

const NO_ANSWER = 0;

export interface FieldProblem {
  field: string;
  message: string;
}

/** A request that failed: refused by the API, or never answered (then `status` is 0). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly fields: readonly FieldProblem[] = [],
  ) {
    super(message);
  }

  get isLostConnection(): boolean {
    return this.status === NO_ANSWER || this.status >= 502;
  }
}

/** A path of the API. Values cannot leave their place in it: not by `/`, and not by `..`. */
export function path(texts: TemplateStringsArray, ...values: (string | number)[]): string {
  return String.raw({ raw: texts }, ...values.map(segment));
}

/** Several segments, such as a file's name with folders, for `path` templates made by hand. */
export function segments(name: string): string {
  return name.split("/").map(segment).join("/");
}

function segment(value: string | number): string {
  const text = String(value);
  // Browsers resolve these before they send a request, in every spelling.
  if (text === "." || text === "..") throw new Problem(NO_ANSWER, `“${text}” is not a name`);
  return encodeURIComponent(text);
}

export type Query = Record<string, string | number | boolean | null | undefined>;

export function withQuery(address: string, query: Query): string {
  const given = Object.entries(query).filter(([, value]) => value != null && value !== "");
  if (!given.length) return address;
  return `${address}?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`;
}

export interface ServerEvent {
  id: string;
  event: string;
  data: string;
}

export class Api {
  private csrf: string | null = null;

  /** `signedOut` is called when the API no longer knows the session; not by a refused `login`. */
  constructor(
    private readonly signedOut: () => void,
    private readonly presence: Presence,
    private readonly login: string,
  ) {}

  trust(csrf: string | null): void {
    this.csrf = csrf;
  }

  async get<T>(address: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
    const answer = await this.fetch(withQuery(address, query), signal ? { signal } : {});
    return (await answer.json()) as T;
  }

  async text(address: string): Promise<string> {
    return (await this.fetch(address)).text();
  }

  async blob(address: string): Promise<Blob> {
    return (await this.fetch(address)).blob();
  }

  async send<T = void>(
    method: string,
    address: string,
    body?: unknown,
    proof: Record<string, string> = {},
  ): Promise<T> {
    const init: RequestInit = { method, headers: proof };
    if (body instanceof Blob) {
      init.body = body;
      init.headers = { ...proof, "Content-Type": "application/octet-stream" };
    } else if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers = { ...proof, "Content-Type": "application/json" };
    }
    const answer = await this.fetch(address, init);
    const text = await answer.text();
    return (text ? JSON.parse(text) : undefined) as T;
  }

  /** Yield server-sent events (HTML 9.2) until the stream ends. The caller resumes. */
  async *events(
    address: string,
    after: string | null,
    signal: AbortSignal,
  ): AsyncGenerator<ServerEvent> {
    const headers: Record<string, string> = { Accept: "text/event-stream" };
    if (after) headers["Last-Event-ID"] = after;
    const answer = await this.fetch(address, { headers, signal });
    if (!answer.body) return;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop() ?? "";
        for (const block of blocks) {
          const event = parsed(block);
          if (event) yield event;
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      throw new Problem(NO_ANSWER, `the connection was lost: ${said(error)}`);
    } finally {
      reader.cancel().catch(() => undefined);
    }
  }

  private async fetch(address: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.csrf && init.method && init.method !== "GET") headers.set("X-CSRF-Token", this.csrf);
    if (!this.presence.isThere) headers.set("X-Runner-Unattended", "1");
    let answer: Response;
    try {
      answer = await fetch(address, { ...init, headers, credentials: "same-origin" });
    } catch (error) {
      throw new Problem(NO_ANSWER, `the API does not answer: ${said(error)}`);
    }
    if (answer.ok) return answer;
    const refused = init.method === "POST" && address === this.login;
    if (answer.status === 401 && !refused) this.signedOut();
    throw await refusal(answer);
  }
}

async function refusal(answer: Response): Promise<Problem> {
  try {
    const told = (await answer.json()) as { detail?: string; errors?: FieldProblem[] | null };
    return new Problem(answer.status, told.detail ?? answer.statusText, told.errors ?? []);
  } catch {
    return new Problem(answer.status, `the API answered ${answer.status} ${answer.statusText}`);
  }
}

function parsed(block: string): ServerEvent | null {
  const found: ServerEvent = { id: "", event: "message", data: "" };
  const data: string[] = [];
  for (const line of block.split(/\r?\n/)) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    const name = line.slice(0, colon);
    if (name === "data") data.push(value);
    else if (name === "id" || name === "event") found[name] = value;
  }
  if (!data.length) return null;
  found.data = data.join("\n");
  return found;
}

export function said(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
