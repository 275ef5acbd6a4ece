"""Measures two states of the code in turn, and says whether the new one is slower than the old one.

Builds the old state (a commit) below `build/states`: its files, its own virtual environment, its
own sandbox image. Then a deployment of each state runs, and every round gives both the same task,
one after the other, the first one changing from round to round. Compared are pairs of one round, so
that a host whose speed changes slows both. Exits with 1 if the new state is worse by more than
`--worst` in any row. As root, with nothing beside it:

    scripts/with-docker .venv/bin/python -m benchmarks.states --old aebdd1e --rounds 30
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Figures, Sheet, machine, publish
from runner.base.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
DRIVER = Path(__file__).with_name("state_driver.py")
FRESH: dict[str, Any] = {}
REUSE = {"reuse": "tenant"}
QUICKER, QUICK_AT_ONCE = 10, 2
POOL, QUICK_POOL = 16, 4
PATIENCE_S = Settings().patient(300)
"""For a task, and until the pool is full again."""
OLD, NEW = "old", "new"


@dataclass(frozen=True)
class Task:
    """The tasks of both states in every round."""

    name: str
    body: dict[str, Any]
    at_once: int
    count: int

    def asked(self, *, quick: bool) -> bytes:
        """Return the line that the driver reads."""
        at_once = min(self.at_once, QUICK_AT_ONCE) if quick else self.at_once
        count = self.count // QUICKER if quick else self.count
        asked = {"body": self.body, "at_once": at_once, "count": max(at_once, count)}
        return json.dumps(asked).encode() + b"\n"


TASKS = (
    Task("fresh sandbox, one after the other", FRESH, at_once=1, count=12),
    Task("fresh sandbox, 8 in flight", FRESH, at_once=8, count=48),
    Task("reuse, one after the other", REUSE, at_once=1, count=40),
    Task("reuse, 8 in flight", REUSE, at_once=8, count=160),
)


@dataclass(frozen=True)
class Block:
    """The results of one state in one round."""

    latency: Figures
    per_s: float
    cpu_ms: float
    """Processor milliseconds of API, worker, PostgreSQL and Redis for each execution."""


@dataclass(frozen=True)
class Row:
    """One figure of one task: each state's median, and the new one's part of the old one's."""

    task: str
    figure: str
    old: float
    new: float
    worse: float
    """Median over the rounds: above 1, the new state is worse."""
    quartiles: tuple[float, float]


class Driver:
    """One state's deployment, in a process of its own."""

    def __init__(
        self, tree: Path, answers: asyncio.StreamReader, tasks: asyncio.StreamWriter
    ) -> None:
        self._tree = tree
        self._answers = answers
        self._tasks = tasks

    async def ready(self) -> None:
        """Wait until nothing of the last task is left to do."""
        await self._answer()

    async def run(self, asked: bytes) -> Block:
        """Return what it measured."""
        self._tasks.write(asked)
        answer = await self._answer()
        await self.ready()
        took, cpu = answer["took_s"], answer["cpu_ms"]
        return Block(Figures.of(took), answer["per_s"], sum(cpu.values()))

    async def _answer(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            line = await self._answers.readline()
        if not line:
            raise RuntimeError(f"the driver of {self._tree} ended; its error is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def driver(
    tree: Path, pool: int, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Driver]:
    """Run a state's deployment; it is gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        tree / ".venv/bin/python", DRIVER, str(pool),
        cwd=tree,
        env={
            **os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1", **(environment or {}),
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )  # fmt: skip
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the driver was started without pipes")
    try:
        running = Driver(tree, process.stdout, process.stdin)
        await running.ready()
        yield running
    finally:
        # Its input ends: it stops its deployment, and ends.
        process.stdin.close()
        await process.wait()


def built(commit: str) -> Path:
    """Return the folder of a commit, with its virtual environment and its sandbox image."""
    told = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--verify", f"{commit}^{{commit}}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if told.returncode:
        raise SystemExit(f"this repository has no commit {commit}: {told.stderr.strip()}")
    full = told.stdout.strip()
    tree = ROOT / "build/states" / full[:12]
    if not tree.exists():
        files = subprocess.run(
            ["git", "-C", str(ROOT), "archive", full], capture_output=True, check=True
        )
        partial = tree.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-xf", "-", "-C", str(partial)], input=files.stdout, check=True)
        partial.rename(tree)
    ready(tree)
    return tree


def ready(tree: Path) -> None:
    """Make what a state needs to run, unless it is there."""
    subprocess.run(["scripts/bootstrap"], cwd=tree, check=True)
    subprocess.run([".venv/bin/runner", "images", "build", "python"], cwd=tree, check=True)


async def measure(
    old: Path, new: Path, rounds: int, *, quick: bool
) -> dict[str, dict[str, list[Block]]]:
    """Return what each state did, for each task, in whole rounds.

    An interruption or a deployment that fails ends it early, with the rounds before.
    """
    found: dict[str, dict[str, list[Block]]] = {task.name: {OLD: [], NEW: []} for task in TASKS}
    pool = QUICK_POOL if quick else POOL
    async with AsyncExitStack() as opened:
        states = {
            OLD: await opened.enter_async_context(driver(old, pool)),
            NEW: await opened.enter_async_context(driver(new, pool)),
        }
        # The first round warms up: neither state has loaded everything.
        try:
            for number in range(rounds + 1):
                blocks = await one_round(states, number, quick=quick)
                for task, name in blocks if number else ():
                    found[task][name].append(blocks[task, name])
                print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        except (RuntimeError, asyncio.CancelledError) as error:
            print(f"round {number} was not finished: {error!r}", file=sys.stderr, flush=True)
    return found


async def one_round(
    states: Mapping[str, Driver], number: int, *, quick: bool
) -> dict[tuple[str, str], Block]:
    """Return what each state did in each task. They begin in turn."""
    order = (OLD, NEW) if number % 2 else (NEW, OLD)
    return {
        (task.name, name): await states[name].run(task.asked(quick=quick))
        for task in TASKS
        for name in order
    }


def rows(found: dict[str, dict[str, list[Block]]]) -> list[Row]:
    """Return every figure of every task."""
    made = []
    for task in TASKS:
        old, new = found[task.name][OLD], found[task.name][NEW]
        if task.at_once == 1:
            made.append(row(task, "median, ms", [each.latency.median for each in old],
                            [each.latency.median for each in new]))  # fmt: skip
        else:
            made.append(row(task, "executions/s", [each.per_s for each in old],
                            [each.per_s for each in new], more_is_better=True))  # fmt: skip
        made.append(row(task, "processor, ms", [each.cpu_ms for each in old],
                        [each.cpu_ms for each in new]))  # fmt: skip
    return made


def row(
    task: Task, figure: str, old: list[float], new: list[float], *, more_is_better: bool = False
) -> Row:
    """Compare the pairs of all rounds."""
    pairs = zip(old, new, strict=True)
    parts = sorted(before / after if more_is_better else after / before for before, after in pairs)
    low, middle, high = statistics.quantiles(parts, n=4) if len(parts) > 1 else parts * 3
    return Row(
        task.name, figure, round(statistics.median(old), 2), round(statistics.median(new), 2),
        round(middle, 3), (round(low, 3), round(high, 3)),
    )  # fmt: skip


def sheet(found: list[Row], rounds: int) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet("task", "figure", OLD, NEW, "worse by", "quartiles")
    for each in found:
        low, high = (f"{part - 1:+.1%}" for part in each.quartiles)
        shown.add_row(
            each.task, each.figure, str(each.old), str(each.new), f"{each.worse - 1:+.1%}",
            f"{low} to {high}",
        )  # fmt: skip
    shown.note(f"Medians of {rounds} rounds. *Worse by*: the median of what each pair says.")
    return shown


def main() -> int:
    """Build, measure and print; return 1 if the new state is worse by more than is allowed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--old", default="aebdd1e", help="commit to compare with")
    parser.add_argument("--new", help="commit to compare; without it, this folder as it is")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="a tenth of each task: try it out")
    parser.add_argument("--worst", type=float, default=0.05, help="0.05: worse by 5 %%")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    if given.new is None:
        ready(ROOT)
    old, new = built(given.old), built(given.new) if given.new else ROOT
    measured = asyncio.run(measure(old, new, given.rounds, quick=given.quick))
    rounds = len(measured[TASKS[0].name][OLD])
    if not rounds:
        raise SystemExit("no round was finished")
    found = rows(measured)
    results = {"rows": found, "old": given.old, "new": given.new or "here", "rounds": rounds,
               "machine": machine()}  # fmt: skip
    publish(given.json, results, sheet(found, rounds))
    # The processor's time has no bound of its own: it is why the others change.
    judged = [each for each in found if not each.figure.startswith("processor")]
    return int(any(each.worse > 1 + given.worst for each in judged))


if __name__ == "__main__":
    sys.exit(main())
