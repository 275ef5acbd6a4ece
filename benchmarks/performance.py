"""Runs every benchmark of speed and cost, one after the other, and writes the page of results.

Each runs in a process of its own with a time-out; figures go to `docs/performance.json`, which is
signed, tables to `docs/performance.md`. Usage: `make bench`, or
`python -m benchmarks.performance --only tti path`.
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
from benchmarks.harness import machine, markdown
from runner.base.settings import Settings
from runner.base.signing import Signer

DOCS = Path(__file__).resolve().parent.parent / "docs"
PATIENCE_S = 1200


@dataclass(frozen=True)
class Section:
    """One benchmark: its module, its arguments, and the texts above and below its table."""

    module: str
    arguments: tuple[str, ...]
    title: str
    words: str


SECTIONS = (
    Section(
        "tti", ("--rounds", "100"), "Time to interactive",
        "From the create call to the first command's result, through HTTP, `print(1)`, 100 of each "
        "mode. Score: 100 x (1 - t/10 s), 60 % median, 25 % p95, 15 % p99, times success.",
    ),
    Section(
        "peers", ("--rounds", "15", "--peers"), "Beside others",
        "The same program in turn. *Capabilities*, *seccomp* (2: a filter), *nnp* (no new "
        "privileges), *user* and *interfaces* as the program itself reads them.",
    ),
    Section(
        "path", ("--rounds", "50"), "Where the time goes",
        "One request after the other; *the sandbox alone* is the same run driven by the benchmark "
        "itself. Processor time is of the whole process, its background work included.",
    ),
    Section(
        "sustained", ("--seconds", "30"), "Sustained",
        "For 30 s each, nothing started ahead; the daemon's own rate in the same run.",
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
HEAD = (
    "Written by `make bench`; the figures are in [performance.json](performance.json), which is "
    "signed (`python -m benchmarks.sealed docs/performance.json`). Everything "
    "was measured in one run on one machine: compare the rows, not the milliseconds with another "
    "machine's. [What the figures say](performance-notes.md) compares them with our targets."
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
    parts = [
        "# Performance",
        HEAD,
        "\n".join(f"- {name}: {what}" for name, what in results["machine"].items()),
        f"Measured in {results['took_s']} s.",
    ]
    if results.get("again"):
        parts.append(f"Measured again since, by themselves: {', '.join(results['again'])}.")
    for section in SECTIONS:
        if section.module in results["benchmarks"]:
            sheet = results["benchmarks"][section.module]["sheet"]
            parts += [f"## {section.title}", section.words, markdown(sheet)]
            parts.append(f"`python -m {shlex.join(command(section))}`")
    return "\n\n".join(parts) + "\n"


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
    given = parser.parse_args()
    path = DOCS / "performance.json"
    began = time.monotonic()
    results: dict[str, Any] = {"machine": machine(), "benchmarks": {}}
    took_s = 0
    if given.only and path.exists():
        earlier = json.loads(path.read_text())
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
    path.write_text(json.dumps(results, indent=1) + "\n")
    sealed.seal(path, Signer.open(Settings().state_dir), results["machine"]["revision"])
    (DOCS / "performance.md").write_text(page(results))
    for each in wrong:
        print(f"{each}: its figures are not as they have to be; its table says why")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
