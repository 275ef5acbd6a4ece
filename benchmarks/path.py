"""The time of one request by its places, and what each process spends on it.

`print(1)` runs again and again, from HTTP to the result. In turn with it, the same program runs in
a sandbox that this process drives itself. The difference is what the API, the queue and the
database add. Usage: `python -m benchmarks.path --rounds 100`.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from benchmarks.harness import PRINT, Deployed, Figures, Sheet, arguments, deployment, publish
from runner.base import telemetry
from runner.base.settings import Settings
from runner.quotas.sizes import DEFAULT_SIZE, load_sizes
from runner.sandbox.drive import use
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.words.execution import InputFile, Program
from runner.words.resources import Limits
from runner.words.sandbox import SandboxSpec

STAGES = ("accept", "hand over", "run", "answer")
EXPLAINED = {
    "accept": "HTTP, who calls, rates, quotas, until it is stored",
    "hand over": "ring, claim, a sandbox, input files, until the program runs",
    "run": "the program, its output, its artifacts, until the result is written",
    "answer": "commit, announcement, HTTP",
}
ROWS: dict[str, dict[str, Any]] = {"fresh sandbox": {}, "reuse": {"reuse": "tenant"}}
WARM_UP = 5


@dataclass(frozen=True)
class Path:
    """One row: complete requests, their stages, the sandbox alone, and processor time."""

    row: str
    whole: Figures
    alone: Figures
    added_ms: float
    stages_ms: dict[str, float]
    cpu_ms: dict[str, float]


async def alone(sandbox: Sandbox, *, last: bool) -> float:
    """Return the seconds of one run in a waiting sandbox, without anything around it."""
    began = time.perf_counter()
    ran = await use(
        sandbox,
        Program(("python3", "main.py"), {"PYTHONUNBUFFERED": "1"}, interpret=True),
        default_size().bounds,
        files=(InputFile("main.py", PRINT["code"].encode()),),  # type: ignore[attr-defined]  # text
        flood_bytes=2**20,
        again=not last,
    )
    took = time.perf_counter() - began
    if ran.stdout != b"1\n" or ran.stderr or ran.files:
        raise RuntimeError(f"the sandbox put out {ran.output} and left {sorted(ran.files)}")
    if not last and (left := await sandbox.clean()):
        raise RuntimeError(f"the sandbox is not clean: {left}")
    if not last:
        await sandbox.prepare()
    return took


def default_size() -> Limits:
    """Return the limits of the default size."""
    return load_sizes(Settings().profiles_path)[DEFAULT_SIZE]


def stages(sent: float, answer: dict[str, Any], took: float) -> dict[str, float]:
    """Return the milliseconds of each stage, by the database's clock, which is this host's."""
    marks = [
        sent,
        *(
            datetime.fromisoformat(answer[name]).timestamp()
            for name in ("created_at", "started_at", "ended_at")
        ),
        sent + took,
    ]
    return {
        name: 1000 * (after - before)
        for name, before, after in zip(STAGES, marks[:-1], marks[1:], strict=True)
    }


async def measure_row(deployed: Deployed, launcher: Launcher, row: str, rounds: int) -> Path:
    """Measure one row."""
    body = {**PRINT, **ROWS[row]}
    sandbox = await launcher.launch(SandboxOrder(SandboxSpec("python", default_size().resources)))
    whole, own, found = [], [], []
    try:
        await sandbox.load()
        await sandbox.prepare()
        caller = await deployed.caller()
        for _ in range(WARM_UP):
            await caller.expect(body)
            await alone(sandbox, last=False)
        cpu: dict[str, float] = {}
        for _ in range(rounds):
            before = deployed.cpu_s()
            sent = time.time()
            _, answer, took = await caller.submit(body)
            after = deployed.cpu_s()
            whole.append(took)
            found.append(stages(sent, answer, took))
            for name, seconds in after.items():
                cpu[name] = cpu.get(name, 0.0) + 1000 * (seconds - before[name]) / rounds
            own.append(await alone(sandbox, last=False))
        caller.close()
    finally:
        await sandbox.destroy()
    return Path(
        row,
        Figures.of(whole),
        Figures.of(own),
        round(1000 * (statistics.median(whole) - statistics.median(own)), 1),
        {name: round(statistics.median(each[name] for each in found), 1) for name in STAGES},
        {name: round(ms, 1) for name, ms in cpu.items()},
    )


async def measure(rounds: int) -> dict[str, Any]:
    """Measure both rows."""
    pool = rounds + 2 * WARM_UP
    async with deployment(pool=pool, pool_max=pool) as deployed:
        await deployed.settled(pool)
        settings = deployed.settings
        own = settings.model_copy(update={"state_dir": settings.state_dir / "alone"})
        async with Launcher.open(own, node=own.node_id, instance="path") as launcher:
            return {"rows": [await measure_row(deployed, launcher, row, rounds) for row in ROWS]}


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    rows: list[Path] = results["rows"]
    shown = Sheet("ms, median", *(row.row for row in rows))
    shown.add_row("the whole request", *(str(row.whole.median) for row in rows))
    for name in STAGES:
        shown.add_row(f"  {name}: {EXPLAINED[name]}", *(str(row.stages_ms[name]) for row in rows))
    shown.add_row("the sandbox alone", *(str(row.alone.median) for row in rows))
    shown.add_row("added by API, queue and database", *(str(row.added_ms) for row in rows))
    for part in rows[0].cpu_ms:
        shown.add_row(f"processor time of {part}", *(str(row.cpu_ms[part]) for row in rows))
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, rounds=50)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(given.rounds))
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
