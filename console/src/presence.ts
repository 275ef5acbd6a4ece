// Whether somebody is at the page. A page that asks by itself must not keep a session alive that
// its person has left: the API then ends the session as if the page were closed.

const AWAY_AFTER_MS = 60_000;
const SIGNS = ["keydown", "pointerdown", "pointermove", "wheel"] as const;

export class Presence {
  private last = Date.now();

  constructor(window: Window) {
    const seen = (): void => void (this.last = Date.now());
    for (const sign of SIGNS) window.addEventListener(sign, seen, { capture: true, passive: true });
  }

  /** Whether the page was touched within the last minute. */
  get isThere(): boolean {
    return Date.now() - this.last < AWAY_AFTER_MS;
  }
}
