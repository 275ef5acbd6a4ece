"""One tenant's single command beside another tenant's many busy sandboxes.

`python -m benchmarks.soak --busy 50`. Busy means: each has a process that computes without end, and
commands are run in it one after the other.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from benchmarks.harness import Deployed, Figures, Sheet, deployment
from benchmarks.living import TRUE, Wire

ROUNDS = 40
BETWEEN_S = 0.1
WARM_UP = 5
BOUND = 2.0
COMPUTES = {"command": ["sh", "-c", "while :; do :; done"]}
KINDS = ("computing", "running commands", "both")


@dataclass(frozen=True)
class Beside:
    """The quiet tenant's commands beside one kind of busy sandboxes."""

    kind: str
    figures: Figures
    times: float
    """How many times as long as alone, in the median."""


@dataclass(frozen=True)
class Neighbour:
    """The quiet tenant's commands alone, and beside a busy neighbour."""

    sandboxes: int
    alone: Figures
    beside: Sequence[Beside]


async def measure(busy: int) -> Neighbour:
    """Measure alone, then beside this many busy sandboxes of another tenant, each kind in turn."""
    settings = {"pool": 4, "pool_max": 4, "sandboxes": busy + 8}
    async with deployment(**settings) as deployed:
        theirs = replace(deployed, key=await deployed.tenant("busy"))
        wire = await Wire(deployed).open()
        quiet, _ = await wire.create()
        wire.close()
        await _commands(deployed, quiet, WARM_UP)
        alone = await _commands(deployed, quiet, ROUNDS)
        calls = await Wire(theirs).open()
        sandboxes = [(await calls.create())[0] for _ in range(busy)]
        idle = await _commands(deployed, quiet, ROUNDS)
        found = [_beside("idle", idle, alone)]
        for kind in KINDS:
            took = await _measured(deployed, theirs, quiet, sandboxes, kind)
            found += [_beside(kind, took, alone)]
        calls.close()
        calls = await Wire(theirs).open()
        for each in sandboxes:
            await calls.ask("DELETE", each)
        calls.close()
    return Neighbour(busy, Figures.of(alone), found)


async def _measured(
    deployed: Deployed, theirs: Deployed, quiet: str, sandboxes: Sequence[str], kind: str
) -> list[float]:
    computing, working = [], []
    if kind != "running commands":
        calls = await Wire(theirs).open()
        computing = [await calls.start(each, COMPUTES) for each in sandboxes]
        calls.close()
    if kind != "computing":
        working = [asyncio.create_task(_without_end(theirs, each)) for each in sandboxes]
    try:
        await _commands(deployed, quiet, WARM_UP)
        took = await _commands(deployed, quiet, ROUNDS)
        for task in working:
            if task.done():
                task.result()
        return took
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        calls = await Wire(theirs).open()
        for process in computing:
            with suppress(RuntimeError):
                await calls.ask("DELETE", process)
        calls.close()


async def _without_end(theirs: Deployed, sandbox: str) -> None:
    wire = await Wire(theirs).open()
    try:
        while True:
            await wire.ask("POST", f"{sandbox}/processes", TRUE)
    finally:
        wire.close()


async def _commands(deployed: Deployed, sandbox: str, rounds: int) -> list[float]:
    # The API closes connections that are idle for long.
    wire = await Wire(deployed).open()
    took = []
    for _ in range(rounds):
        took.append(await wire.true(sandbox))
        await asyncio.sleep(BETWEEN_S)
    wire.close()
    return took


def _beside(kind: str, took: Sequence[float], alone: Sequence[float]) -> Beside:
    figures = Figures.of(took)
    return Beside(kind, figures, round(figures.median / Figures.of(alone).median, 2))


def sheet(found: Neighbour) -> Sheet:
    """Return the figures as text for people."""
    made = Sheet("`true` of a quiet tenant", "median ms", "p95", "p99", "times alone")
    rows = [("alone", found.alone, 1.0)]
    rows += [
        (f"beside {found.sandboxes} sandboxes {each.kind}", each.figures, each.times)
        for each in found.beside
    ]
    for name, figures, times in rows:
        numbers = (figures.median, figures.p95, figures.p99, times)
        made.add_row(name, *(f"{number:g}" for number in numbers))
    made.note(f"The aim is at most {BOUND:g} times.")
    return made
