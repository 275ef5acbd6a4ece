"""Sandboxes that live, through HTTP, beside `docker run` and `docker exec` in the same run.

Create and first command, a command, commands in flight, files in and out, forks, pause and
resume, and code contexts. Usage: `python -m benchmarks.living`.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

from benchmarks.harness import Deployed, Figures, Sheet, arguments, deployment, publish
from benchmarks.latency import image_id
from runner.base import telemetry
from runner.base.settings import Settings

IN_FLIGHT = 8
SMALL = 2**20
LARGE = 32 * 2**20
FORKED = 10 * 2**20
REST_S = 0.5
"""After each sandbox that ends: the daemon goes on tidying up."""
STOCK = 16
TRUE = {"command": ["true"], "wait_s": 10}
KIND: dict[str, Any] = {}
"""The sandbox of a request that asks for nothing, as the stock has it."""


class Wire:
    """One connection that stays open: HTTP/1.1 by hand, so that the client costs little."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed

    async def open(self) -> Self:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._deployed.port)
        return self

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[bytes, float]:
        """Return the answer and the seconds that it took. Raises RuntimeError if it is none."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body)
        payload = content if isinstance(content, bytes) else content.encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self._deployed.key}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        began = time.perf_counter()
        self._writer.write(head.encode())
        self._writer.write(payload)
        await self._writer.drain()
        answer = await self._answer(f"{method} {path}")
        return answer, time.perf_counter() - began

    async def _answer(self, what: str) -> bytes:
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in head:
            content = await self._chunks()
        else:
            _, named, after = head.partition(b"content-length:")
            length = int(after.split(b"\r\n", 1)[0]) if named else 0
            content = await self._reader.readexactly(length)
        if not head.startswith(b"http/1.1 2"):
            raise RuntimeError(f"{what} went wrong: {head[:12]!r} {content[:300]!r}")
        return content

    async def _chunks(self) -> bytes:
        pieces = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            pieces.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
        return b"".join(pieces)

    async def create(self) -> tuple[str, float]:
        """Make a sandbox; return its path and the seconds that it took."""
        answer, took = await self.ask("POST", "/v1/sandboxes", KIND)
        return f"/v1/sandboxes/{json.loads(answer)['id']}", took

    async def start(self, sandbox: str, body: dict[str, Any]) -> str:
        """Start a process; return its path."""
        answer, _ = await self.ask("POST", f"{sandbox}/processes", body)
        return f"{sandbox}/processes/{json.loads(answer)['process']}"

    async def true(self, sandbox: str) -> float:
        """Run `true`; return the seconds until its end was told."""
        answer, took = await self.ask("POST", f"{sandbox}/processes", TRUE)
        if (ended := json.loads(answer))["exit_code"] != 0:
            raise RuntimeError(f"`true` went wrong: {ended}")
        return took


async def first_commands(deployed: Deployed, rounds: int) -> list[float]:
    """Return the seconds from a create to its first command's result, of a stocked pool."""
    wire = await Wire(deployed).open()
    took = []
    for _ in range(rounds):
        sandbox, create_s = await wire.create()
        took.append(create_s + await wire.true(sandbox))
        await wire.ask("DELETE", sandbox)
        await asyncio.sleep(REST_S)
    wire.close()
    return took


async def contexts(wire: Wire, sandbox: str, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of beginning a context of Python, and of running `1+1` in it."""
    began = []
    for _ in range(3):
        answer, took = await wire.ask("POST", f"{sandbox}/contexts", {"language": "python"})
        began.append(took)
        context = f"{sandbox}/contexts/{json.loads(answer)['context']}"

    async def run() -> float:
        answer, took = await wire.ask("POST", f"{context}/run", {"code": "1+1"})
        if b'"text/plain": "2"' not in answer or b'"ok": true' not in answer:
            raise RuntimeError(f"`1+1` went wrong: {answer!r}")
        return took

    return began, await times(run, rounds)


async def in_flight(deployed: Deployed, sandbox: str, seconds: float) -> float:
    """Return how many commands a second run, this many at once."""
    wires = [await Wire(deployed).open() for _ in range(IN_FLIGHT)]
    began, done = time.perf_counter(), 0

    async def work(wire: Wire) -> None:
        nonlocal done
        while time.perf_counter() < began + seconds:
            await wire.true(sandbox)
            done += 1

    await asyncio.gather(*map(work, wires))
    lasted = time.perf_counter() - began
    for wire in wires:
        wire.close()
    return round(done / lasted, 1)


async def times(action: Callable[[], Awaitable[float]], rounds: int) -> list[float]:
    """Return the seconds of each of these rounds."""
    return [await action() for _ in range(rounds)]


async def files(
    wire: Wire, sandbox: str, size: int, rounds: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of writing and of reading a file of this size."""
    path, content = f"{sandbox}/files/content?path=file", b"x" * size

    async def write() -> float:
        return (await wire.ask("PUT", path, content))[1]

    async def read() -> float:
        answer, took = await wire.ask("GET", path)
        if len(answer) != size:
            raise RuntimeError(f"{len(answer)} bytes came back instead of {size}")
        return took

    return await times(write, rounds), await times(read, rounds)


async def forks(wire: Wire, rounds: int) -> list[float]:
    """Return the seconds of forking a sandbox with ten files of 1 MiB, of a stocked pool."""
    sandbox, _ = await wire.create()
    for number in range(10):
        content = os.urandom(FORKED // 10)
        await wire.ask("PUT", f"{sandbox}/files/content?path=file-{number}", content)

    async def fork() -> float:
        answer, took = await wire.ask("POST", f"{sandbox}/fork", {"timeout_s": 60})
        (copy,) = json.loads(answer)["items"]
        await wire.ask("DELETE", f"/v1/sandboxes/{copy['id']}")
        await asyncio.sleep(REST_S)
        return took

    took = await times(fork, rounds)
    await wire.ask("DELETE", sandbox)
    return took


def docker(settings: Settings, *words: str) -> float:
    """Run Docker's own command; return its seconds."""
    program = shutil.which("docker")
    if program is None:
        raise RuntimeError("the docker command is missing: `apt-get install docker.io`")
    began = time.perf_counter()
    subprocess.run(
        [program, "--host", settings.docker_url, *words],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return time.perf_counter() - began


async def by_docker(settings: Settings, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of `docker run` and of `docker exec` of `true`."""
    image, name = await image_id(settings), "runner-benchmark-exec"
    run = ("run", "--rm", "--network", "none", "--entrypoint", "true", image)
    ran = []
    for _ in range(rounds):
        ran.append(await asyncio.to_thread(docker, settings, *run))
        await asyncio.sleep(REST_S)
    keep = ("run", "--detach", "--rm", "--network", "none", "--name", name, "--entrypoint", "sleep")
    await asyncio.to_thread(docker, settings, *keep, image, "600")
    try:
        executed = [
            await asyncio.to_thread(docker, settings, "exec", name, "true") for _ in range(rounds)
        ]
    finally:
        await asyncio.to_thread(docker, settings, "rm", "--force", name)
    return ran, executed


async def measure(rounds: int, seconds: float) -> dict[str, Any]:
    """Measure all of it."""
    ran, executed = await by_docker(Settings(), max(5, rounds // 5))
    async with deployment(pool=STOCK, pool_max=STOCK) as deployed:
        await deployed.settled(STOCK)
        created = await first_commands(deployed, rounds)
        wire = await Wire(deployed).open()
        sandbox, _ = await wire.create()
        commands = await times(lambda: wire.true(sandbox), 5 * rounds)
        rate = await in_flight(deployed, sandbox, seconds)
        began, code = await contexts(wire, sandbox, 5 * rounds)
        small_in, small_out = await files(wire, sandbox, SMALL, rounds)
        large_in, large_out = await files(wire, sandbox, LARGE, 3)

        async def change(what: str) -> float:
            return (await wire.ask("POST", f"{sandbox}/{what}"))[1]

        paused, resumed = [], []
        for _ in range(rounds):
            paused.append(await change("pause"))
            resumed.append(await change("resume"))
        await wire.ask("DELETE", sandbox)
        forked = await forks(wire, rounds)
        wire.close()
    both = [write + read for write, read in zip(small_in, small_out, strict=True)]
    return {
        "docker run": Figures.of(ran),
        "docker exec": Figures.of(executed),
        "create and first command": Figures.of(created),
        "command": Figures.of(commands),
        "commands_per_s": rate,
        "context": Figures.of(began),
        "code": Figures.of(code),
        "file in and out": Figures.of(both),
        "large_in_mib_s": round(LARGE / 2**20 / statistics.median(large_in)),
        "large_out_mib_s": round(LARGE / 2**20 / statistics.median(large_out)),
        "fork": Figures.of(forked),
        "pause": Figures.of(paused),
        "resume": Figures.of(resumed),
    }


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet("through HTTP", "median ms", "p95", "p99", "least")
    names = {
        "docker run": "`docker run` of `true`",
        "docker exec": "`docker exec` of `true`",
        "create and first command": "create, and `true` in it, of a stocked pool",
        "command": "`true` in a sandbox that runs",
        "code": "`1+1` in a context of Python",
        "context": "begin a context of Python",
        "file in and out": "a file of 1 MiB in and out",
        "fork": "fork of a sandbox with 10 MiB of files",
        "pause": "pause",
        "resume": "resume",
    }
    for name, words in names.items():
        each = results[name]
        shown.add_row(words, *(f"{ms:g}" for ms in (each.median, each.p95, each.p99, each.least)))
    create = results["docker run"].median / results["create and first command"].median
    command = results["docker exec"].median / results["command"].median
    shown.note(
        f"Create and first command is {create:.1f} times as fast as `docker run`, a command "
        f"{command:.1f} times as fast as `docker exec`."
    )
    shown.note(
        f"With {IN_FLIGHT} in flight, {results['commands_per_s']} commands a second. A file of "
        f"{LARGE // 2**20} MiB goes in at {results['large_in_mib_s']} MiB/s and out at "
        f"{results['large_out_mib_s']} MiB/s."
    )
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, rounds=40, seconds=10.0)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(given.rounds, given.seconds))
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
