"""Follows executions by their calls, in two states of the code.

A worker of each state runs `print(1)` a few times, from the claim to the receipt. Counted are the
functions that are entered from another module ("stops"), the modules they are in, and the packages.
Calls within a module are free: whoever reads it does not leave the page. As root:

    scripts/with-docker .venv/bin/python -m benchmarks.stops --old aebdd1e
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Sheet, machine, publish
from benchmarks.states import NEW, OLD, ROOT, Task, built, driver, ready

FOLLOWING = Path(__file__).with_name("following")
TASK = Task("print(1)", {}, at_once=1, count=5)
POOL = 2


@dataclass(frozen=True)
class Stop:
    """A function that was entered from another module."""

    caller: str
    module: str
    function: str


async def followed(tree: Path) -> list[Stop]:
    """Return the stops of an execution in one state of the code."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "followed"
        environment = {
            "FOLLOWED": str(kept),
            "PYTHONPATH": os.pathsep.join([str(FOLLOWING), str(tree)]),
        }
        async with driver(tree, POOL, environment) as running:
            await running.run(TASK.asked(quick=False))
        return [Stop(*json.loads(line)) for line in kept.read_text().splitlines()]


def row(name: str, stops: list[Stop]) -> list[str]:
    """Return a state's figures."""
    modules = {stop.module for stop in stops}
    packages = {module.rpartition(".")[0] for module in modules}
    functions = {(stop.module, stop.function) for stop in stops}
    return [name, str(len(functions)), str(len(modules)), str(len(packages))]


def main() -> int:
    """Build both states, follow, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--old", default="aebdd1e", help="commit to compare with")
    parser.add_argument("--json", type=Path, help="where to write every stop")
    given = parser.parse_args()
    ready(ROOT)
    found = {name: asyncio.run(followed(tree))
             for name, tree in ((OLD, built(given.old)), (NEW, ROOT))}  # fmt: skip
    shown = Sheet("state", "stops", "modules", "packages")
    for name, stops in found.items():
        shown.add_row(*row(name, stops))
    shown.note("Stops: functions entered from another module, from the claim to the receipt.")
    publish(given.json, {"stops": found, "old": given.old, "machine": machine()}, shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
