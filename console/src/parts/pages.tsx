// Lists that the API gives page by page, by cursors.
import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import type { Query } from "../api";
import { useLoad, type Loaded } from "../hooks";
import { useApi } from "../session";
import { Loading } from "./common";

export interface Cursored<T> {
  items: T[];
  next_cursor: string | null;
}

export interface Paged<T> extends Loaded<Cursored<T>> {
  number: number;
  turn: (by: 1 | -1) => void;
}

/** Load one page of a list. Another `query` begins at the first page again. */
export function usePages<T>(address: string, query: Query): Paged<T> {
  const api = useApi();
  const key = JSON.stringify([address, query]);
  const [places, setPlaces] = useState<{ key: string; cursors: (string | null)[] }>({
    key,
    cursors: [null],
  });
  const cursors = places.key === key ? places.cursors : [null];
  const cursor = cursors[cursors.length - 1] ?? null;
  const loaded = useLoad(
    (signal) => api.get<Cursored<T>>(address, { ...query, cursor }, signal),
    `${key} ${cursor}`,
  );
  const turn = (by: 1 | -1): void => {
    const next = loaded.data?.next_cursor ?? null;
    if (by === 1 && next) setPlaces({ key, cursors: [...cursors, next] });
    if (by === -1 && cursors.length > 1) setPlaces({ key, cursors: cursors.slice(0, -1) });
  };
  return { ...loaded, number: cursors.length, turn };
}

export function Pages<T>(given: {
  of: Paged<T>;
  label: string;
  children: (items: T[]) => ComponentChildren;
}): JSX.Element {
  const { of } = given;
  return (
    <Loading of={of}>
      {(page) => (
        <>
          {given.children(page.items)}
          <Pager of={of} label={given.label} />
        </>
      )}
    </Loading>
  );
}

/** Turns the pages of a list, if it has several. */
export function Pager<T>({ of, label }: { of: Paged<T>; label: string }): JSX.Element | null {
  const more = Boolean(of.data?.next_cursor);
  if (of.number === 1 && !more) return null;
  return (
    <nav class="pager" aria-label={`Pages of ${label}`}>
      <button type="button" disabled={of.number === 1} onClick={() => of.turn(-1)}>
        Previous
      </button>
      <span aria-live="polite">Page {of.number}</span>
      <button type="button" disabled={!more} onClick={() => of.turn(1)}>
        Next
      </button>
    </nav>
  );
}
