// What surrounds every page: navigation, who is logged in, and the way out.
import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import { useAction } from "../hooks";
import { link, type Place } from "../router";
import { Notice, Page } from "./common";

export interface Entry {
  name: string;
  title: string;
  page: (place: Place) => ComponentChildren;
}

export function Frame(given: {
  title: string;
  who: ComponentChildren;
  entries: Entry[];
  place: Place;
  logOut: () => Promise<unknown>;
}): JSX.Element {
  const { entries, place } = given;
  const [open, setOpen] = useState(false);
  const leaving = useAction(given.logOut);
  const name = place.parts[0] ?? "";
  const entry = entries.find((each) => each.name === name);
  return (
    <div class="shell">
      <a class="skip" href="#main" onClick={skip}>
        Skip to the page
      </a>
      <header class="top">
        <button
          type="button"
          class="menu"
          aria-expanded={open}
          aria-controls="pages"
          onClick={() => setOpen(!open)}
        >
          Menu
        </button>
        <strong>{given.title}</strong>
        <span class="who">{given.who}</span>
        <button type="button" disabled={leaving.busy} onClick={() => void leaving.run()}>
          Log out
        </button>
      </header>
      <nav id="pages" class={open ? "pages open" : "pages"} aria-label="Pages">
        <ul>
          {entries.map((each) => (
            <li key={each.name}>
              <a
                href={link(...(each.name ? [each.name] : []))}
                aria-current={each === entry ? "page" : undefined}
                onClick={() => setOpen(false)}
              >
                {each.title}
              </a>
            </li>
          ))}
        </ul>
        <p class="hint">
          <a href="/docs">API reference</a>
          <br />
          <a href="/console/licences.txt">Licences</a>
        </p>
      </nav>
      <main id="main" tabIndex={-1}>
        <Notice problem={leaving.problem} />
        {entry ? entry.page(place) : <Nothing />}
      </main>
    </div>
  );
}

function skip(event: Event): void {
  // Its address would be a page of ours.
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Nothing(): JSX.Element {
  return (
    <Page title="No such page">
      <p>There is no such page, or you may not see it.</p>
    </Page>
  );
}
