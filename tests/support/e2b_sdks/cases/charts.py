"""Figures of matplotlib: a picture, and what they draw as data."""

from typing import Any

from tests.support.e2b_sdks.case import Cases
from tests.support.e2b_sdks.world import World

CASES = Cases()


async def drawn(w: World, code: str) -> Any:
    """Return the chart that code draws."""
    plot = f"import matplotlib.pyplot as plt\n{code}\nplt.show()"
    ran = await w(w.box.run_code(plot, timeout=120))
    assert ran.error is None, ran.error
    (figure,) = [each for each in ran.results if each.png]
    assert figure.png.startswith("iVBORw0KGgo"), figure.png[:40]
    assert figure.chart is not None, figure.formats()
    return figure.chart


def kind(chart: Any) -> str:
    """Return a chart's kind as text."""
    return str(chart.type.value)


@CASES.case()
async def chart_of_lines(w: World) -> None:
    chart = await drawn(
        w,
        "plt.plot([1, 2, 3], [4, 5, 6], label='growth')\n"
        "plt.title('A line'); plt.xlabel('time (s)'); plt.ylabel('height')",
    )
    assert (kind(chart), chart.title) == ("line", "A line")
    assert (chart.x_label, chart.x_unit, chart.y_label) == ("time (s)", "s", "height")
    (line,) = chart.elements
    assert (line.label, line.points) == ("growth", [(1, 4), (2, 5), (3, 6)]), line.points
    assert chart.x_scale.value == "linear"
    assert len(chart.x_ticks) == len(chart.x_tick_labels)


@CASES.case()
async def chart_of_points(w: World) -> None:
    chart = await drawn(w, "plt.scatter([1, 3], [2, 4], label='found')")
    assert kind(chart) == "scatter"
    assert [(each.label, each.points) for each in chart.elements] == [("found", [(1, 2), (3, 4)])]


@CASES.case()
async def chart_of_bars(w: World) -> None:
    chart = await drawn(w, "plt.bar(['a', 'b'], [4, 5], label='sold')")
    assert kind(chart) == "bar"
    bars = [(each.label, each.group, float(each.value)) for each in chart.elements]
    assert bars == [("a", "sold", 4.0), ("b", "sold", 5.0)], bars


@CASES.case()
async def chart_of_a_pie(w: World) -> None:
    chart = await drawn(w, "plt.pie([1, 3], labels=['some', 'most'])")
    assert kind(chart) == "pie"
    assert [(each.label, round(each.angle)) for each in chart.elements] == [
        ("some", 90), ("most", 270),
    ]  # fmt: skip


@CASES.case()
async def chart_of_boxes(w: World) -> None:
    chart = await drawn(w, "plt.boxplot([[1, 2, 3, 4, 5, 20]])")
    assert kind(chart) == "box_and_whisker"
    (box,) = chart.elements
    assert (box.min, box.first_quartile, box.median, box.third_quartile, box.max) == (
        1.0, 2.25, 3.5, 4.75, 5.0,
    )  # fmt: skip
    assert list(box.outliers) == [20.0]


@CASES.case()
async def chart_of_charts(w: World) -> None:
    chart = await drawn(w, "f, (a, b) = plt.subplots(1, 2); a.plot([1]); b.bar(['x'], [1])")
    assert kind(chart) == "superchart"
    assert [kind(each) for each in chart.elements] == ["line", "bar"]


@CASES.case()
async def chart_with_other_scales(w: World) -> None:
    chart = await drawn(w, "plt.plot([1, 10], [1, 100]); plt.xscale('log'); plt.yscale('log')")
    assert (chart.x_scale.value, chart.y_scale.value) == ("log", "log")
    dated = await drawn(
        w, "from datetime import date\nplt.plot([date(2024, 1, 1), date(2024, 1, 2)], [1, 2])"
    )
    assert dated.x_scale.value == "datetime"
    assert str(dated.elements[0].points[0][0]).startswith("2024-01-01")


@CASES.case()
async def chart_that_shows_no_data(w: World) -> None:
    """A figure of another kind is a picture; its chart is unknown, or there is none."""
    ran = await w(
        w.box.run_code("import matplotlib.pyplot as plt\nplt.imshow([[1, 2], [3, 4]])\nplt.show()")
    )
    (figure,) = [each for each in ran.results if each.png]
    assert figure.chart is None or kind(figure.chart) == "unknown"
