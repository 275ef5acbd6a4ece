"""How long `print(1)` takes through the HTTP API, beside `docker run` of the same image.

Both take turns in one run on one machine, so that the ratio holds on a noisy machine. Each
execution has a fresh container on both sides; the only hardening of `docker run` is `--network
none`. Prints a table and one line of JSON. Usage: `python benchmarks/latency.py ROUNDS`.
"""

import asyncio
import json
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.progress import track
from rich.table import Table

from agent_runner import Client
from runner.base import telemetry
from runner.base.settings import Settings
from runner.cli.demo import temporary_state
from runner.cli.embedded import embedded
from runner.cli.operate import engine
from runner.sandbox.engine.images import Images

ROUNDS = 50
CODE = "print(1)"


@dataclass(frozen=True)
class Figures:
    """Milliseconds of one contender."""

    median: float
    p95: float
    least: float
    most: float


def figures(seconds: list[float]) -> Figures:
    """Return the figures of several runs."""
    ms = sorted(1000 * each for each in seconds)
    return Figures(
        median=round(statistics.median(ms), 1),
        p95=round(ms[min(len(ms) - 1, round(0.95 * len(ms)))], 1),
        least=round(ms[0], 1),
        most=round(ms[-1], 1),
    )


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds an action took."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def by_api(api: Client) -> None:
    """Run the program through the API and check its output."""
    ended = api.submit(code=CODE, language="python", wait_s=30)
    if ended.stdout is None or ended.stdout.raw != b"1\n":
        raise RuntimeError(f"the execution went wrong: {ended}")


def by_docker(settings: Settings, image: str) -> None:
    """Run the program by `docker run` and check its output."""
    program = shutil.which("docker")
    if program is None:
        raise RuntimeError("the docker command is missing: `apt-get install docker.io`")
    ran = subprocess.run(
        [
            program, "--host", settings.docker_url, "run", "--rm", "--network", "none",
            image,
            "python3", "-c", CODE,
        ],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    if ran.stdout != b"1\n":
        raise RuntimeError(f"docker run went wrong: {ran}")


async def image_id(settings: Settings) -> str:
    """Return Docker's id of the default image: both sides run the same."""
    async with engine(settings) as docker:
        return await Images(docker, settings.recipes_path).require(settings.images[0])


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    telemetry.configure("error", json=False)
    settings = Settings()
    image = asyncio.run(image_id(settings))
    api_s: list[float] = []
    docker_s: list[float] = []
    console = Console()
    with (
        temporary_state(settings) as private,
        embedded(private, ephemeral=True) as address,
        Client(address.url, address.api_key) as api,
    ):
        by_api(api)
        by_docker(settings, image)
        for _ in track(range(rounds), "measuring", console=console, transient=True):
            api_s.append(timed(lambda: by_api(api)))
            docker_s.append(timed(lambda: by_docker(settings, image)))
    ours, theirs = figures(api_s), figures(docker_s)
    table = Table("print(1), ms", "median", "p95", "min", "max")
    for name, each in (("POST /v1/executions with wait_s", ours), ("docker run", theirs)):
        table.add_row(name, *(str(x) for x in (each.median, each.p95, each.least, each.most)))
    console.print(table)
    ratio = statistics.median(a / b for a, b in zip(api_s, docker_s, strict=True))
    console.print(f"median ratio, pair by pair: {ratio:.2f}")
    print(json.dumps({"rounds": rounds, "api_ms": vars(ours), "docker_ms": vars(theirs),
                      "ratio": round(ratio, 3), "kernel": platform.release(),
                      "machine": platform.machine()}))  # fmt: skip


if __name__ == "__main__":
    main()
