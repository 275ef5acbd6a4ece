"""The memory of idle sandboxes: that of PID 1, and all that the control group is charged for.

Usage: `python -m benchmarks.idle`. The figures of two versions can be compared on one host. The own
memory of PID 1 holds no file's pages. Its PSS (proportional set size) also has its share of those,
which grows smaller with more sandboxes.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Sheet, arguments, publish
from runner.base import telemetry
from runner.base.settings import Settings
from runner.cli.demo import temporary_state
from runner.quotas.sizes import DEFAULT_SIZE, load_sizes
from runner.sandbox.drive import launched
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.words.sandbox import SandboxSpec

IMAGE = "python"
SETTLED_S = 1.0
KIB = 1024


def kib(pid: int, name: str) -> int:
    """Return a figure of a process's memory (proc_pid_smaps(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


async def holds(launcher: Launcher, sandbox: Sandbox) -> dict[str, int]:
    """Return what a sandbox holds."""
    pid = int((await launcher.engine.state(sandbox.container.id))["Pid"])
    group = sandbox.container.in_use().memory_bytes or 0
    return {"own": kib(pid, "Anonymous"), "pss": kib(pid, "Pss"), "group": group // KIB}


async def measure(sandboxes: int) -> dict[str, Any]:
    """Start sandboxes, and measure each as it was started, then as the stock keeps it."""
    with temporary_state(Settings()) as settings:
        resources = load_sizes(settings.profiles_path)[DEFAULT_SIZE].resources
        order = SandboxOrder(SandboxSpec(IMAGE, resources))
        async with (
            Launcher.open(settings, node="benchmark-idle", instance="only") as launcher,
            AsyncExitStack() as stack,
        ):
            idle = [
                await stack.enter_async_context(launched(launcher, order)) for _ in range(sandboxes)
            ]
            await asyncio.sleep(SETTLED_S)
            started = [await holds(launcher, each) for each in idle]
            for each in idle:
                await each.load()
                await each.prepare()
            await asyncio.sleep(SETTLED_S)
            stocked = [await holds(launcher, each) for each in idle]
    return {"rows": {"started": started, "in the stock": stocked}}


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet("KiB, median", "own", "least", "most", "PSS", "control group")
    for state, found in results["rows"].items():
        own, pss, group = ([each[name] for each in found] for name in ("own", "pss", "group"))
        figures = (median(own), min(own), max(own), median(pss), median(group))
        shown.add_row(state, *(f"{each:.0f}" for each in figures))
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, sandboxes=16)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(given.sandboxes))
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
