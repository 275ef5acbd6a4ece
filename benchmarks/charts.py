"""Bar charts of tables of figures, as SVG that is readable on a dark page and on a light one.

A chart has no background and takes its colours from the reader's preference
(`prefers-color-scheme`, Media Queries Level 5), which an image on a page knows as well. Shades of
one colour tell its bars apart, so it can be read without seeing colours.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

WIDTH = 860
LABEL = 300
"""Where bars begin."""
LONGEST = 46
"""Most characters of a label, which fit beside the bars."""
VALUE = 70
"""Room behind the longest bar for its figure."""
BAR, GAP, LINE = 13, 10, 20
FAINTEST = 0.3
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px }
.bar { fill: #0a5cc2 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .bar { fill: #58a6ff } }
"""


@dataclass(frozen=True)
class Chart:
    """Which cells of a table are drawn: for each row, a bar for each of some columns."""

    title: str
    columns: tuple[str, ...]
    labels: tuple[int, ...] = (0,)
    """The numbers of the columns that name a row."""
    rows: tuple[str, ...] = ()
    """The first cells of the rows to draw; empty means all that have figures."""
    ratios: bool = False
    """Whether equal lengths mean equal ratios (a logarithmic scale): for figures far apart."""


@dataclass(frozen=True)
class _Group:
    label: str
    values: tuple[float, ...]


def svg(chart: Chart, sheet: Mapping[str, Any]) -> str:
    """Return the chart of a table, as `Sheet` is written. Raises ValueError if nothing is drawn."""
    groups = _groups(chart, sheet)
    if not groups:
        raise ValueError(f"{chart.title}: no row has figures in {', '.join(chart.columns)}")
    scale = _Scale.of([value for group in groups for value in group.values], ratios=chart.ratios)
    top = 2 * LINE + 4
    height = top + len(groups) * (len(chart.columns) * BAR + GAP)
    root = ET.Element(
        "svg", xmlns="http://www.w3.org/2000/svg", role="img",
        viewBox=f"0 0 {WIDTH} {height}", width=f"{WIDTH}", height=f"{height}",
    )  # fmt: skip
    ET.SubElement(root, "title").text = chart.title
    ET.SubElement(root, "style").text = _STYLE
    _text(root, 0, 15, chart.title, kind="title")
    _legend(root, chart)
    for group in groups:
        middle = top + len(group.values) * BAR / 2
        _text(root, LABEL - 8, middle + 4, group.label, anchor="end")
        for number, value in enumerate(group.values):
            long = scale.length(value)
            _bar(root, LABEL, top, long, _shade(number, len(group.values)))
            _text(root, LABEL + long + 5, top + BAR - 2, f"{value:,g}")
            top += BAR
        top += GAP
    ET.indent(root)
    return ET.tostring(root, "unicode") + "\n"


@dataclass(frozen=True)
class _Scale:
    least: float
    most: float
    ratios: bool

    @classmethod
    def of(cls, values: Sequence[float], *, ratios: bool) -> "_Scale":
        # Half of the smallest, so that its bar can be seen as well.
        least = min((value for value in values if value > 0), default=1.0) / 2
        return cls(least, max(*values, 2 * least), ratios)

    def length(self, value: float) -> float:
        if not self.ratios:
            part = value / self.most
        elif value <= self.least:
            part = 0.0
        else:
            part = math.log(value / self.least) / math.log(self.most / self.least)
        return round(part * (WIDTH - LABEL - VALUE), 1)


def _groups(chart: Chart, sheet: Mapping[str, Any]) -> list[_Group]:
    places = [sheet["header"].index(each) for each in chart.columns]
    found = []
    for row in sheet["rows"]:
        values = [_number(row[place]) for place in places]
        figures = tuple(value for value in values if value is not None)
        if len(figures) == len(values) and (not chart.rows or row[0] in chart.rows):
            label = ", ".join(text for at in chart.labels if (text := row[at].strip()))
            found.append(_Group(_short(label), figures))
    return found


def _short(label: str) -> str:
    """Return a label that fits: without its explanation after a colon, or cut."""
    if len(label) > LONGEST:
        label = label.partition(": ")[0]
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"


def _number(cell: str) -> float | None:
    """Return the figure in a cell; None if there is none, as for what is absent."""
    try:
        return float(cell.replace(",", ""))
    except ValueError:
        return None


def _shade(number: int, of: int) -> float:
    return round(1 - (1 - FAINTEST) * number / max(1, of - 1), 2)


def _legend(root: ET.Element, chart: Chart) -> None:
    x = float(LABEL)
    for number, column in enumerate(chart.columns):
        _bar(root, x, LINE + 3, BAR, _shade(number, len(chart.columns)))
        _text(root, x + BAR + 4, LINE + BAR + 1, column)
        x += BAR + 20 + 7 * len(column)
    if chart.ratios:
        _text(root, 0, LINE + BAR + 1, "equal lengths are equal ratios")


def _bar(root: ET.Element, x: float, y: float, long: float, shade: float) -> None:
    place = {"x": f"{x:g}", "y": f"{y:g}", "width": f"{long:g}", "height": f"{BAR - 2}"}
    ET.SubElement(root, "rect", {"class": "bar", "fill-opacity": f"{shade}", **place})


def _text(
    root: ET.Element, x: float, y: float, text: str, *, anchor: str = "start",
    kind: str = "",
) -> None:  # fmt: skip
    place = {"x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor}
    element = ET.SubElement(root, "text", {**place, **({"class": kind} if kind else {})})
    element.text = text
