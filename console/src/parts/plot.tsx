// Plots in SVG. A table with the same numbers is beside each, for those who cannot see it.
import type { JSX } from "preact";

const WIDTH = 600;
const HEIGHT = 120;

export interface Point {
  label: string;
  value: number | null;
}

export function Plot(given: {
  title: string;
  points: Point[];
  kind: "line" | "bars";
  shown: (value: number) => string;
}): JSX.Element {
  const { points, shown } = given;
  const values = points.map((each) => each.value ?? 0);
  const most = Math.max(...values, 0) || 1;
  const step = WIDTH / Math.max(1, points.length - (given.kind === "line" ? 1 : 0));
  const y = (value: number): number => HEIGHT - (value / most) * (HEIGHT - 4);
  return (
    <figure class="plot">
      <figcaption>
        {given.title} <span class="quiet">at most {shown(Math.max(...values, 0))}</span>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
        {given.kind === "bars" ? (
          values.map((value, at) => (
            <rect key={at} x={at * step + 1} width={Math.max(1, step - 2)} y={y(value)} height={HEIGHT - y(value)}>
              <title>{`${points[at]?.label}: ${shown(value)}`}</title>
            </rect>
          ))
        ) : (
          <polyline points={values.map((value, at) => `${at * step},${y(value)}`).join(" ")} />
        )}
      </svg>
      <details>
        <summary>Numbers of {given.title}</summary>
        <table>
          <tbody>
            {points.map((each) => (
              <tr key={each.label}>
                <th scope="row">{each.label}</th>
                <td>{each.value === null ? "–" : shown(each.value)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </details>
    </figure>
  );
}
