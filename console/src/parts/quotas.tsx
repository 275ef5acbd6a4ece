import type { JSX } from "preact";
import { bytes, count, seconds, words } from "../text";
import type { Quota } from "../views";

export function amount(name: string, value: number): string {
  if (name.includes("bytes")) return bytes(value);
  if (/_s($|_)/.test(name)) return seconds(value);
  return count(value);
}

export function Quotas({ of }: { of: Quota[] }): JSX.Element {
  return (
    <ul class="quotas">
      {of.map((each) => (
        <li key={each.name}>
          <span id={`quota-${each.name}`}>{words(each.name)}</span>
          <meter
            aria-labelledby={`quota-${each.name}`}
            min={0}
            max={each.limit || 1}
            high={each.limit * 0.8}
            value={each.used}
          />
          <span>
            {amount(each.name, each.used)} of {amount(each.name, each.limit)}
          </span>
        </li>
      ))}
    </ul>
  );
}
