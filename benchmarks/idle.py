"""What PID 1 holds for itself in a sandbox that was just started: KiB that it shares with nobody.

Usage: `python -m benchmarks.idle`. The figures of two versions can be compared on one host.
"""

import asyncio
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Sheet, arguments, publish
from runner.base import telemetry
from runner.base.settings import Settings
from runner.cli.demo import temporary_state
from runner.quotas.sizes import DEFAULT_SIZE, load_sizes
from runner.sandbox.drive import launched
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.words.sandbox import SandboxSpec

SETTLED_S = 1.0


def own_kib(pid: int) -> int:
    """Return a process's anonymous memory (proc_pid_smaps(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


async def measure(images: list[str], sandboxes: int) -> dict[str, Any]:
    """Start sandboxes of each image one after another, and read each one's PID 1."""
    rows = []
    with temporary_state(Settings()) as settings:
        resources = load_sizes(settings.profiles_path)[DEFAULT_SIZE].resources
        async with Launcher.open(settings, node="benchmark-idle", instance="only") as launcher:
            for image in images:
                order = SandboxOrder(SandboxSpec(image, resources))
                found = []
                for _ in range(sandboxes):
                    async with launched(launcher, order) as sandbox:
                        await asyncio.sleep(SETTLED_S)
                        told = await launcher.engine.state(sandbox.container.id)
                        found.append(own_kib(int(told["Pid"])))
                rows.append({"image": image, "median": median(found), "all": sorted(found)})
    return {"rows": rows}


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet("KiB of PID 1", "median", "least", "most")
    for each in results["rows"]:
        shown.add_row(
            each["image"], f"{each['median']:.0f}", str(each["all"][0]), str(each["all"][-1])
        )
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, sandboxes=5)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(["python"], given.sandboxes))
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
