"""Time to interactive: from the create call to the first command's result, through the HTTP API.

It measures the three usual modes: sequential, staggered (one every 200 ms), burst (all at once),
and the usual score. In turn with the sequential mode, a hardened `docker run` runs the same program
with our own configuration as flags. Usage: `make bench`, or `python -m benchmarks.tti --rounds
100`.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.cli import HardenedRun
from benchmarks.harness import (
    PRINT,
    Deployed,
    Figures,
    Sheet,
    arguments,
    deployment,
    publish,
    score,
)
from benchmarks.latency import image_id
from runner.base import telemetry
from runner.base.settings import Settings

ROWS: dict[str, dict[str, Any]] = {
    "loaded interpreter": {},
    "new interpreter": {"interpreter": "fresh"},
    "reuse": {"reuse": "tenant"},
}
STAGGER_S = 0.2
WARM_UP = 3
BESIDE = 25
REST_S = 0.5
"""Pause between our call and a `docker run`: the daemon goes on tidying up after a container is
gone, and each would pay for the other's."""
SLOTS = 16
POOLS = ((100, 128), (16, 16))
"""How many sandboxes wait at least and at most: enough for a burst, and too few."""


@dataclass(frozen=True)
class Mode:
    """One row in one mode."""

    row: str
    mode: str
    pool: int
    figures: Figures
    succeeded: float
    score: float


def judged(row: str, mode: str, pool: int, took: list[float], wanted: int) -> Mode:
    """Return a mode's figures and score."""
    figures, succeeded = Figures.of(took), len(took) / wanted
    return Mode(row, mode, pool, figures, succeeded, score(figures, succeeded))


async def sequential(
    deployed: Deployed, body: dict[str, Any], rounds: int, beside: HardenedRun | None
) -> tuple[list[float], list[float]]:
    """Return our seconds, and those of `docker run` in turn with them."""
    ours, theirs = [], []
    caller = await deployed.caller()
    for _ in range(rounds):
        if beside is not None:
            theirs.append(await asyncio.to_thread(beside.timed))
            await asyncio.sleep(REST_S)
        ours.append(await caller.expect(body))
        if beside is not None:
            await asyncio.sleep(REST_S)
    caller.close()
    return ours, theirs


async def together(
    deployed: Deployed, body: dict[str, Any], rounds: int, stagger_s: float
) -> list[float]:
    """Return the seconds of those that succeeded, each on a new connection."""

    async def one(number: int) -> float:
        await asyncio.sleep(number * stagger_s)
        caller = await deployed.caller()
        try:
            return await caller.expect(body)
        finally:
            caller.close()

    ended = await asyncio.gather(*map(one, range(rounds)), return_exceptions=True)
    return [each for each in ended if isinstance(each, float)]


async def of_row(
    deployed: Deployed, row: str, rounds: int, docker_run: HardenedRun
) -> tuple[list[Mode], dict[str, float]]:
    """Measure one row in the three modes; return them, and its ratios to `docker run`."""
    body = {**PRINT, **ROWS[row]}
    pool = deployed.settings.pool
    await sequential(deployed, body, WARM_UP, None)
    await full(deployed, row)
    ours, theirs = await sequential(deployed, body, BESIDE, docker_run)
    ratios = {
        "median": statistics.median(theirs) / statistics.median(ours),
        "p99": Figures.of(theirs).p99 / Figures.of(ours).p99,
    }
    await full(deployed, row)
    alone, _ = await sequential(deployed, body, rounds, None)
    await full(deployed, row)
    staggered = await together(deployed, body, rounds, STAGGER_S)
    await full(deployed, row)
    burst = await together(deployed, body, rounds, 0)
    return [
        judged(row, "beside docker run", pool, ours, BESIDE),
        judged("hardened docker run", "beside ours", 0, theirs, BESIDE),
        judged(row, "sequential", pool, alone, rounds),
        judged(row, "staggered", pool, staggered, rounds),
        judged(row, "burst", pool, burst, rounds),
    ], ratios


async def full(deployed: Deployed, row: str) -> None:
    """Wait until the pool is full and nothing else of the deployment is there."""
    pool = deployed.settings.pool
    # A sandbox that serves its tenant again stays beside the pool: as many as ran at once.
    await deployed.settled(pool, pool + SLOTS if row == "reuse" else pool)


async def measure(rounds: int) -> dict[str, Any]:
    """Measure every row, and its burst with a pool that is smaller than it."""
    modes: list[Mode] = []
    ratios: dict[str, dict[str, float]] = {}
    began = time.monotonic()
    image = await image_id(Settings())
    (pool, pool_max), (small, small_max) = POOLS
    async with deployment(pool=pool, pool_max=pool_max, slots=SLOTS) as deployed:
        settings = deployed.settings
        docker_run = HardenedRun(settings, image, settings.state_dir)
        for row in ROWS:
            found, ratios[row] = await of_row(deployed, row, rounds, docker_run)
            modes += found
    async with deployment(pool=small, pool_max=small_max, slots=SLOTS) as deployed:
        for row, more in ROWS.items():
            await full(deployed, row)
            burst = await together(deployed, {**PRINT, **more}, rounds, 0)
            modes.append(judged(row, "burst", small, burst, rounds))
    return {"modes": modes, "ratios": ratios, "took_s": round(time.monotonic() - began)}


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet("ms", "mode", "pool", "median", "p95", "p99", "succeeded", "score")
    for each in results["modes"]:
        figures = each.figures
        shown.add_row(
            each.row, each.mode, str(each.pool), str(figures.median), str(figures.p95),
            str(figures.p99), f"{each.succeeded:.0%}", str(each.score),
        )  # fmt: skip
    for row, ratio in results["ratios"].items():
        shown.note(
            f"{row}: {ratio['median']:.1f} times faster than a hardened `docker run` in the "
            f"median, {ratio['p99']:.1f} times at p99."
        )
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, rounds=100)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(given.rounds))
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
