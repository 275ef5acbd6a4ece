"""The price that a program pays for its sandbox while it runs, beside one on the host.

For the host's side, the same interpreter of the same image runs in a container without isolation:
privileged, no seccomp filter, no limits, the host's namespaces. Programs time themselves, so that
their start does not count. Usage: `python -m benchmarks.inside --rounds 5`.
"""

import asyncio
import statistics
import subprocess
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Sheet, arguments, deployment, publish
from benchmarks.latency import image_id
from runner.base import telemetry
from runner.base.settings import Settings

TIMED = """import os, subprocess, tempfile, time
os.chdir(tempfile.mkdtemp())
t = time.perf_counter()
"""
SAID = "\nprint(time.perf_counter() - t)"
PROGRAMS = {
    "arithmetic in a loop": "n = 0\nfor i in range(3_000_000): n += i * i % 7",
    "files: 2,000 written, read, removed": """
for i in range(2000):
    with open(f'f{i}', 'wb') as f: f.write(bytes(4096))
for i in range(2000):
    with open(f'f{i}', 'rb') as f: f.read()
    os.unlink(f'f{i}')""",
    "100 small processes": "for _ in range(100): subprocess.run(['/bin/true'])",
}
UNCONFINED = (
    "--privileged", "--security-opt", "seccomp=unconfined", "--network", "host", "--pid", "host",
    "--ipc", "host", "--uts", "host", "--tmpfs", "/tmp:exec",  # noqa: S108 - the container's own
)  # fmt: skip
WALLS = ("container", "gvisor")


@dataclass(frozen=True)
class Inside:
    """One program: its seconds on the host, and how many times longer it takes in each sandbox."""

    program: str
    host_s: float
    ratio: dict[str, float]


def on_host(settings: Settings, image: str, code: str) -> float:
    """Return the seconds that a program takes on the host."""
    ran = subprocess.run(
        [
            "docker", "--host", settings.docker_url, "run", "--rm", *UNCONFINED,
            "--entrypoint", "/usr/bin/python3", image, "-c", TIMED + code + SAID,
        ],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    return float(ran.stdout)


async def measure(rounds: int) -> dict[str, Any]:
    """Measure every program, in turn on the host and in each sandbox."""
    settings = Settings()
    image = await image_id(settings)
    rows = []
    async with deployment() as deployed:
        for program, code in PROGRAMS.items():
            body = {
                "command": ["python3", "-c", TIMED + code + SAID],
                "wait_s": 60,
                "limits": {"cpu": 2, "timeout_s": 50},
            }
            host: list[float] = []
            behind: dict[str, list[float]] = {wall: [] for wall in WALLS}
            for _ in range(rounds):
                host.append(await asyncio.to_thread(on_host, settings, image, code))
                for wall in WALLS:
                    caller = await deployed.caller()
                    _, answer, _ = await caller.submit({**body, "isolation": wall})
                    caller.close()
                    behind[wall].append(float(answer["result"]["stdout"]["content"]))
            ratio = {
                wall: round(statistics.median(took) / statistics.median(host), 2)
                for wall, took in behind.items()
            }
            rows.append(Inside(program, round(statistics.median(host), 3), ratio))
    return {"rows": rows}


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet("inside", "host, s", *(f"{wall}, times that" for wall in WALLS))
    for each in results["rows"]:
        shown.add_row(each.program, str(each.host_s), *(str(each.ratio[wall]) for wall in WALLS))
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, rounds=3)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(given.rounds))
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
