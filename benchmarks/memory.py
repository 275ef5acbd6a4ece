"""The cost of an idle sandbox: proportional set size of its processes, and the host's own account.

Usage: `python -m benchmarks.memory --sandboxes 20`.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import psutil

from benchmarks.harness import Sheet, arguments, deployment, publish
from runner.base import telemetry

MIB = 1024
GIB = 1024.0
SHIM = "containerd-shim"


@dataclass(frozen=True)
class Memory:
    """MiB of one idle sandbox of an image."""

    image: str
    supervisor: float
    shim: float
    available: float
    """How much less memory the host has available for each one, including the kernel's."""
    per_gib: int


def pss_mb(process: psutil.Process) -> float:
    """Return a process's proportional set size (proc_pid_smaps(5))."""
    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) / MIB for line in text.splitlines() if line.startswith("Pss:"))


async def of_image(image: str, sandboxes: int) -> Memory:
    """Measure this many idle sandboxes of one image."""
    settings = {"pool": 0, "pool_max": sandboxes, "images": (image,)}
    async with deployment(**settings) as empty:
        await asyncio.sleep(2)
        before = psutil.virtual_memory().available
        del empty
    async with deployment(**{**settings, "pool": sandboxes}) as deployed:
        await deployed.settled(sandboxes)
        await asyncio.sleep(2)
        after = psutil.virtual_memory().available
        client = docker.APIClient(deployed.settings.docker_url, version="auto", timeout=30)
        label = f"runner.node={deployed.settings.node_id}"
        pids = [
            client.inspect_container(each["Id"])["State"]["Pid"]
            for each in client.containers(filters={"label": label})
        ]
        client.close()
        inits = [psutil.Process(pid) for pid in pids]
        supervisor = sum(map(pss_mb, inits)) / sandboxes
        shims = [parent for each in inits if (parent := each.parent()) is not None]
        shim = sum(pss_mb(each) for each in shims if SHIM in each.name()) / sandboxes
    available = (before - after) / 2**20 / sandboxes
    dearest = max(available, supervisor + shim)
    return Memory(
        image, round(supervisor, 1), round(shim, 1), round(available, 1), int(GIB // dearest)
    )


async def measure(sandboxes: int) -> dict[str, Any]:
    """Measure both images."""
    return {"rows": [await of_image(image, sandboxes) for image in ("python", "data")]}


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet("MiB each", "supervisor", "shim", "host's available", "to the GiB")
    for each in results["rows"]:
        shown.add_row(
            each.image, str(each.supervisor), str(each.shim), str(each.available), str(each.per_gib)
        )
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, sandboxes=16)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(given.sandboxes))
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
