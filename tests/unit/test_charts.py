"""Charts of figures: what a bar is, how long it is, and that text cannot break out of it."""

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.charts import Chart, svg
from benchmarks.performance import SECTIONS

SVG = "{http://www.w3.org/2000/svg}"
SHEET = {
    "header": ["ms", "mode", "median", "p95"],
    "rows": [
        ["ours", "burst", "10.0", "20.0"],
        ["theirs", "burst", "1,000.0", "2,000.0"],
        ["somebody's", "", "absent", ""],
        ["<script>", "&", "10.0", "40.0"],
    ],
    "notes": [],
}


def drawn(chart: Chart, sheet: dict[str, Any] = SHEET) -> tuple[list[float], list[str]]:
    """Return the lengths of the bars and the texts of a chart, without its legend."""
    root = ET.fromstring(svg(chart, sheet))  # noqa: S314 - our own
    lengths = [float(each.get("width", "")) for each in root.iter(f"{SVG}rect")]
    texts = [each.text or "" for each in root.iter(f"{SVG}text")]
    return lengths[len(chart.columns) :], texts


def test_bars_are_as_long_as_their_figures() -> None:
    lengths, texts = drawn(Chart("t", ("median", "p95"), rows=("ours", "theirs")))
    most = lengths[3]
    assert lengths == pytest.approx([most / 200, most / 100, most / 2, most], abs=0.1)
    assert {"ours", "theirs", "10", "1,000", "2,000"} <= set(texts)


def test_equal_ratios_are_equal_lengths_where_that_is_said() -> None:
    lengths, texts = drawn(Chart("t", ("median", "p95"), rows=("ours", "theirs"), ratios=True))
    assert lengths[1] - lengths[0] == pytest.approx(lengths[3] - lengths[2], abs=0.2)
    assert "equal lengths are equal ratios" in texts


def test_a_row_is_named_by_its_cells() -> None:
    """Text of a table is text in the picture, whatever it contains."""
    _, texts = drawn(Chart("t", ("median",), labels=(0, 1)))
    assert {"ours, burst", "<script>, &"} <= set(texts)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("run: until it is written", "run: until it is written"),
     ("run: " + "long " * 10, "run"), ("l" * 60, "l" * 45 + "…")],
)  # fmt: skip
def test_a_long_name_loses_its_explanation_or_its_end(name: str, shown: str) -> None:
    _, texts = drawn(Chart("t", ("ms",)), {"header": ["", "ms"], "rows": [[name, "1"]]})
    assert shown in texts


def test_what_is_absent_is_left_out() -> None:
    lengths, texts = drawn(Chart("t", ("median",)))
    assert len(lengths) == 3
    assert "somebody's" not in texts


def test_a_chart_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="t: no row has figures in median"):
        svg(Chart("t", ("median",), rows=("nobody",)), SHEET)


def test_it_is_readable_on_dark_pages_and_draws_no_background() -> None:
    text = svg(Chart("t", ("median",)), SHEET)
    assert "prefers-color-scheme: dark" in text
    lengths, _ = drawn(Chart("t", ("median",)))
    assert max(lengths) < 860


def test_the_main_tables_have_charts() -> None:
    """Nobody sees a chart if the page is not told of it: `make bench` writes them."""
    with_charts = {each.module for each in SECTIONS if each.chart is not None}
    assert {"tti", "peers", "path", "sustained"} <= with_charts
