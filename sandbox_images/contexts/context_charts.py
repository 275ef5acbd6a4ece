"""The data of a figure of matplotlib: lines, points, bars, wedges, boxes.

An agent that sees only a picture cannot calculate with it. The shape is that of the interpreters
that agents know: a chart's `type`, `title`, labels and `elements`; a figure with several charts is
a `superchart`.
"""

from __future__ import annotations

import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLOSED_BOX, STROKE = 5, 2
"""How many points a box has, and each of its whiskers, caps and medians."""
MOST = 2_000
"""Points, bars, wedges and boxes of one chart that are reported."""


def of(figure: Any) -> dict[str, Any] | None:
    """Return a figure's chart, or None if it draws nothing that has data."""
    found = [chart for axes in figure.axes if (chart := _chart(axes)) is not None]
    if not found:
        return None
    if len(found) == 1:
        return found[0]
    title = figure._suptitle.get_text() if figure._suptitle else None  # noqa: SLF001
    return {"type": "superchart", "title": title, "elements": found}


def _chart(axes: Any) -> dict[str, Any] | None:
    for kind, read in (
        ("pie", _wedges),
        ("box_and_whisker", _boxes),
        ("bar", _bars),
        ("line", _lines),
        ("scatter", _points),
    ):
        if elements := read(axes):
            chart = {"type": kind, "title": axes.get_title() or None, "elements": elements}
            return chart if kind == "pie" else {**chart, **_labels(axes, kind)}
    return None


def _labels(axes: Any, kind: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        label = axis.get_label().get_text()
        told[f"{name}_label"] = label or None
        told[f"{name}_unit"] = _unit(label)
        if kind in {"line", "scatter"}:
            told[f"{name}_ticks"] = [_value(each) for each in axis.get_ticklocs()]
            told[f"{name}_tick_labels"] = [each.get_text() for each in axis.get_ticklabels()]
            told[f"{name}_scale"] = "datetime" if _is_time(axis) else axis.get_scale()
    return told


def _unit(label: str) -> str | None:
    begin, end = label.rfind("("), label.rfind(")")
    return label[begin + 1 : end] or None if 0 <= begin < end else None


def _is_time(axis: Any) -> bool:
    return "Date" in type(axis.get_major_formatter()).__name__


def _value(value: Any) -> Any:
    """Return a coordinate as JSON knows it."""
    if hasattr(value, "item"):
        value = value.item()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (int, str)) else str(value)


def _place(axis: Any, value: Any) -> Any:
    """Return a coordinate of a point, a time as text."""
    if _is_time(axis) and not hasattr(value, "isoformat"):
        from matplotlib.dates import num2date  # noqa: PLC0415 - only with a figure

        return num2date(value).isoformat()
    return _value(value)


def _named(artist: Any) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else label


def _lines(axes: Any) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(axes.get_lines()):
        xs, ys = line.get_xdata(orig=False), line.get_ydata(orig=False)
        points = [
            [_place(axes.xaxis, x), _place(axes.yaxis, y)]
            for x, y in zip(xs[:MOST], ys[:MOST], strict=False)
        ]
        if points:
            found.append({"label": _named(line) or f"Line {number}", "points": points})
    return found


def _points(axes: Any) -> list[dict[str, Any]]:
    from matplotlib.collections import PathCollection  # noqa: PLC0415 - as above

    found = []
    for number, group in enumerate(axes.collections):
        if isinstance(group, PathCollection) and len(group.get_offsets()):
            points = [
                [_place(axes.xaxis, x), _place(axes.yaxis, y)]
                for x, y in group.get_offsets()[:MOST]
            ]
            found.append({"label": _named(group) or f"Group {number}", "points": points})
    return found


def _bars(axes: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for group in axes.containers:
        if type(group).__name__ != "BarContainer":
            continue
        lying = getattr(group, "orientation", "vertical") == "horizontal"
        axis = axes.yaxis if lying else axes.xaxis
        names = {
            round(float(place), 6): text.get_text()
            for place, text in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
        }
        for bar in group.patches[: MOST - len(found)]:
            begin, size = (
                (bar.get_y(), bar.get_height()) if lying else (bar.get_x(), bar.get_width())
            )
            middle = round(float(begin + size / 2), 6)
            found.append(
                {
                    "label": names.get(middle) or f"{middle:g}",
                    "group": _named(group),
                    "value": _value(bar.get_width() if lying else bar.get_height()),
                }
            )
    return found


def _wedges(axes: Any) -> list[dict[str, Any]]:
    from matplotlib.patches import Wedge  # noqa: PLC0415 - as above

    return [
        {
            "label": _named(wedge),
            "angle": abs(float(wedge.theta2) - float(wedge.theta1)),
            "radius": float(wedge.r),
        }
        for wedge in [each for each in axes.patches if isinstance(each, Wedge)][:MOST]
    ]


def _boxes(axes: Any) -> list[dict[str, Any]]:
    """Return the boxes that `boxplot` draws: five lines of known shapes each, and maybe fliers."""
    lines = axes.get_lines()
    drawn = [(line.get_xdata(orig=False), line.get_ydata(orig=False)) for line in lines]
    # Fliers are points without a line between them.
    loose = [line.get_linestyle() in {"None", "none", " ", ""} for line in lines]
    shapes = [shape for shape, alone in zip(drawn, loose, strict=True) if not alone]
    fliers = [shape for shape, alone in zip(drawn, loose, strict=True) if alone]
    # A box is closed: four corners and the first of them again.
    boxes = [(x, y) for x, y in shapes if len(x) == CLOSED_BOX and x[0] == x[4] and y[0] == y[4]]
    if not boxes or len(lines) < 6 * len(boxes):
        return []
    ticks = [each.get_text() for each in axes.get_xticklabels()]
    found = []
    for number, (xs, ys) in enumerate(boxes[:MOST]):
        left, right, low, high = min(xs), max(xs), min(ys), max(ys)
        middle = (left + right) / 2
        inside = [
            (x, y)
            for x, y in shapes
            if len(x) == STROKE and abs((min(x) + max(x)) / 2 - middle) < (right - left) / 4
        ]
        heights = [float(each) for _, y in inside for each in y]
        medians = [float(y[0]) for x, y in inside if y[0] == y[1] and min(x) == left]
        if not heights or not medians:
            return []
        found.append(
            {
                "label": ticks[number] if number < len(ticks) else str(number + 1),
                "min": min(heights),
                "first_quartile": float(low),
                "median": medians[0],
                "third_quartile": float(high),
                "max": max(heights),
                "outliers": [
                    float(y)
                    for xs, ys in fliers
                    for x, y in zip(xs[:MOST], ys[:MOST], strict=True)
                    if abs(x - middle) < (right - left) / 4
                ],
            }
        )
    return found
