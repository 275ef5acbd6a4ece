"""Runs every benchmark of speed and cost, one after the other, and writes the page of results.

Each runs in a process of its own with a time-out; figures go to `docs/performance.json`, which is
signed, tables to `docs/performance.md`, and charts of the main tables to `docs/performance/`.
Usage: `make bench`, or `python -m benchmarks.performance --only tti path`. With `--page`, nothing
is measured: page and charts are written again from the figures.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import sealed
from benchmarks.charts import Chart, svg
from benchmarks.harness import machine, markdown
from runner.base.settings import Settings
from runner.base.signing import Signer

DOCS = Path(__file__).resolve().parent.parent / "docs"
FIGURES = DOCS / "performance.json"
CHARTS = "performance"
"""The folder of the charts, beside the page."""
PATIENCE_S = 1200


@dataclass(frozen=True)
class Section:
    """One benchmark: its module, its arguments, and the texts above and below its table."""

    module: str
    arguments: tuple[str, ...]
    title: str
    words: str
    chart: Chart | None = None


SECTIONS = (
    Section(
        "tti", ("--rounds", "100"), "Time to interactive",
        "From the create call to the first command's result, through HTTP, `print(1)`, 100 of each "
        "mode. Score: 100 x (1 - t/10 s), 60 % median, 25 % p95, 15 % p99, times success.",
        Chart(
            "Time to interactive by mode and pool, ms", ("median", "p95"), (0, 1, 2), ratios=True
        ),
    ),
    Section(
        "peers", ("--rounds", "15", "--peers"), "Beside others",
        "The same program in turn. *Capabilities*, *seccomp* (2: a filter), *nnp* (no new "
        "privileges), *user* and *interfaces* as the program itself reads them.",
        Chart("The same program, ms", ("median", "p95")),
    ),
    Section(
        "path", ("--rounds", "50"), "Where the time goes",
        "One request after the other; *the sandbox alone* is the same run driven by the benchmark "
        "itself. Processor time is of the whole process, its background work included.",
        Chart("Where the time goes, ms, median", ("fresh sandbox", "reuse")),
    ),
    Section(
        "sustained", ("--seconds", "30"), "Sustained",
        "For 30 s each, nothing started ahead; the daemon's own rate in the same run.",
        Chart(
            "Sustained, executions/s", tuple(f"{n} in flight" for n in (1, 2, 4, 8, 16)),
            rows=("fresh sandbox", "reuse"),
        ),
    ),
    Section(
        "living", ("--rounds", "40"), "Sandboxes that live",
        "One request after the other on one connection. Sandboxes that are created come from a "
        "pool of 16, with a rest of half a second after each.",
    ),
    Section(
        "e2b", ("--rounds", "100"), "Through E2B's SDK",
        "E2B's unmodified SDK and ours in turn, from one process, 100 of each mode, with the pool "
        "full at the start of each batch.",
    ),
    Section(
        "pandas_import", ("--rounds", "6"), "import pandas",
        "`pd.DataFrame({'a': range(100)}).describe()`, through HTTP, image `data`.",
    ),
    Section(
        "inside", ("--rounds", "3"), "Cost inside",
        "The program's own clock, beside the same interpreter in a container without walls.",
    ),
    Section(
        "growth", (), "Growth",
        "A quiet tenant's `print(1)` with so much there already.",
    ),
    Section(
        "fairness", ("--rounds", "3", "--only", "1,000 small"), "A noisy neighbour",
        "A quiet tenant's batches of 10 beside another's 1,000 that wait, all of `sleep 0.3`; the "
        "bound is twice the figure alone. Two more neighbours without `--only`.",
    ),
    Section(
        "memory", ("--sandboxes", "16"), "Memory",
        "Proportional set size of idle sandboxes, and what the host has less of for each.",
    ),
)  # fmt: skip
SIGNED = ", which is signed (`python -m benchmarks.sealed docs/performance.json`)"
HEAD = (
    "Written by `make bench`; the figures are in [performance.json](performance.json){signed}. "
    "Everything was measured in one run on one machine: compare the rows, not the milliseconds "
    "with another machine's. [What the figures say](performance-notes.md) compares them with our "
    "targets."
)


def command(section: Section) -> tuple[str, ...]:
    """Return the arguments for `python -m`."""
    return (f"benchmarks.{section.module}", *section.arguments)


def run(section: Section) -> tuple[dict[str, Any], bool]:
    """Return the figures that a benchmark wrote, and whether they are as they have to be.

    Raises CalledProcessError if it wrote none.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        words = (sys.executable, "-m", *command(section), "--json", str(path))
        ran = subprocess.run(words, check=False, timeout=PATIENCE_S)
        if not path.exists():
            raise subprocess.CalledProcessError(ran.returncode, words)
        found: dict[str, Any] = json.loads(path.read_text())
    return found, ran.returncode == 0


def page(results: dict[str, Any]) -> str:
    """Return the page of the measurements."""
    signed = SIGNED if sealed.beside(FIGURES).exists() else ""
    parts = [
        "# Performance",
        HEAD.format(signed=signed),
        "\n".join(f"- {name}: {what}" for name, what in results["machine"].items()),
        f"Measured in {results['took_s']} s.",
    ]
    if results.get("again"):
        parts.append(f"Measured again since, by themselves: {', '.join(results['again'])}.")
    for section in SECTIONS:
        if section.module in results["benchmarks"]:
            sheet = results["benchmarks"][section.module]["sheet"]
            parts += [f"## {section.title}", section.words]
            if section.chart is not None:
                parts.append(f"![{section.chart.title}]({CHARTS}/{section.module}.svg)")
            parts.append(markdown(sheet))
            parts.append(f"`python -m {shlex.join(command(section))}`")
    return "\n\n".join(parts) + "\n"


def write_page(results: dict[str, Any]) -> None:
    """Write the page of the measurements, and its charts."""
    folder = DOCS / CHARTS
    folder.mkdir(exist_ok=True)
    for section in SECTIONS:
        if section.chart is not None and section.module in results["benchmarks"]:
            sheet = results["benchmarks"][section.module]["sheet"]
            (folder / f"{section.module}.svg").write_text(svg(section.chart, sheet))
    (DOCS / "performance.md").write_text(page(results))


def _differences(before: dict[str, str], now: dict[str, str]) -> str:
    """Name what has changed since, apart from our own revision."""
    names = sorted({*before, *now} - {"revision"})
    return ", ".join(name for name in names if before.get(name) != now.get(name))


def main() -> int:
    """Measure everything, and write the results; 1 if a benchmark says that one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="*", help="modules; the others keep their figures, of the same machine"
    )
    parser.add_argument("--page", action="store_true", help="write the page again; measure nothing")
    given = parser.parse_args()
    if given.page:
        write_page(json.loads(FIGURES.read_text()))
        return 0
    began = time.monotonic()
    results: dict[str, Any] = {"machine": machine(), "benchmarks": {}}
    took_s = 0
    if given.only and FIGURES.exists():
        earlier = json.loads(FIGURES.read_text())
        if other := _differences(earlier["machine"], results["machine"]):
            parser.error(f"the other figures are of another machine ({other}): measure all of them")
        results["benchmarks"], took_s = earlier["benchmarks"], earlier["took_s"]
        results["again"] = sorted({*earlier.get("again", ()), *given.only})
    wrong = []
    for section in SECTIONS:
        if not given.only or section.module in given.only:
            results["benchmarks"][section.module], fine = run(section)
            wrong += [] if fine else [section.module]
    results["took_s"] = took_s + round(time.monotonic() - began)
    FIGURES.write_text(json.dumps(results, indent=1) + "\n")
    sealed.seal(FIGURES, Signer.open(Settings().state_dir), results["machine"]["revision"])
    write_page(results)
    for each in wrong:
        print(f"{each}: its figures are not as they have to be; its table says why")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
