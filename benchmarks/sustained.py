"""Sustained executions per second through the HTTP API: with a fresh sandbox each, and with reuse.

Beside the fresh ones, in the same run, it measures what the Docker daemon can do with our exact
container: create, start until its supervisor is ready, remove. Usage: `python -m
benchmarks.sustained`.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.daemon import daemon_rate, ours
from benchmarks.harness import PRINT, Deployed, Figures, Sheet, arguments, deployment, publish
from benchmarks.latency import image_id
from runner.base import telemetry
from runner.base.settings import Settings

IN_FLIGHT = (1, 2, 4, 8, 16)
DAEMON_AT_ONCE = 4
ROWS: dict[str, dict[str, Any]] = {"fresh sandbox": {}, "reuse": {"reuse": "tenant"}}


@dataclass(frozen=True)
class Sustained:
    """One row with one number of executions in flight."""

    row: str
    in_flight: int
    per_s: float
    failed: int
    figures: Figures


async def sustain(deployed: Deployed, row: str, in_flight: int, seconds: float) -> Sustained:
    """Keep so many in flight for so long; what was begun before the end counts, to its end."""
    body = {**PRINT, **ROWS[row]}
    callers = [await deployed.caller() for _ in range(in_flight)]
    await asyncio.gather(*(caller.expect(body) for caller in callers))
    took: list[float] = []
    failed = 0
    began = time.perf_counter()

    async def work(number: int) -> None:
        nonlocal failed
        while time.perf_counter() < began + seconds:
            try:
                took.append(await callers[number].expect(body))
            except RuntimeError:
                failed += 1

    await asyncio.gather(*map(work, range(in_flight)))
    lasted = time.perf_counter() - began
    for caller in callers:
        caller.close()
    return Sustained(row, in_flight, round(len(took) / lasted, 1), failed, Figures.of(took))


def of_daemon(settings: Settings, image: str, seconds: float) -> float:
    """Return what the daemon can do, with nothing of ours around it."""
    with ours(settings, image) as given:
        return daemon_rate(given, seconds, DAEMON_AT_ONCE)


async def measure(seconds: float) -> dict[str, Any]:
    """Measure every row at every number in flight, and the daemon before and after."""
    settings = Settings()
    image = await image_id(settings)
    rates, rows = [], []
    for row in ROWS:
        # Start nothing ahead: that stock would be used up, so its rate could not be sustained.
        pool = {"pool": 0, "pool_max": 32 if row == "reuse" else 0}
        async with deployment(slots=max(IN_FLIGHT), **pool) as deployed:
            rows += [await sustain(deployed, row, each, seconds) for each in IN_FLIGHT]
        if row != "reuse":
            rates.append(await asyncio.to_thread(of_daemon, settings, image, seconds))
    best = max(each.per_s for each in rows if each.row == "fresh sandbox")
    return {"rows": rows, "daemon_per_s": round(max(rates), 1), "ratio": best / max(rates)}


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet("executions/s", *(f"{each} in flight" for each in IN_FLIGHT))
    for row in ROWS:
        found = [each for each in results["rows"] if each.row == row]
        shown.add_row(row, *(str(each.per_s) for each in found))
        shown.add_row("  median, ms", *(str(each.figures.median) for each in found))
        shown.add_row("  failed", *(str(each.failed) for each in found))
    daemon, part = results["daemon_per_s"], results["ratio"]
    shown.note(f"The daemon itself: {daemon}/s of our exact container; ours are {part:.0%} of it.")
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, seconds=10.0)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(given.seconds))
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
