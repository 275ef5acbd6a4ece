"""One of RQ's consumers for all slots of a worker, or one for each slot: threads, or processes.

The product has one thread, which takes a ring when a slot is free. A thread or a process for each
slot stays with its ring until the loop is done with it. Rings come from another process, as from
the API; the worker's event loop spends a given amount of processor time on each. Measured are the
time from ringing until that is done, and the processor time of the worker with all its processes.
Usage: `python -m benchmarks.consumers --rounds 400`.
"""

import asyncio
import multiprocessing
import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any
from uuid import UUID, uuid4

import psutil
import redis
import uvloop

from benchmarks.harness import Figures, Sheet, arguments, cpu_s, publish
from runner.base import telemetry
from runner.base.settings import Settings
from runner.cli.demo import temporary_state
from runner.embedded.services import services
from runner.queue.consumer import Consumer
from runner.queue.job import Then, bound_job_class
from runner.queue.ring import Ring
from runner.words.ids import new_id
from tests.support import rings

SLOTS = 16
IN_FLIGHT = (1, 8)
WORK_MS = (0.0, 6.0)
"""Work of the loop for each ring. The second value is near that of an execution in a reused
sandbox."""
PIECES = 12
"""Length of a piece of that work; between two pieces, the loop serves others."""
WARM_UP = 20
PATIENCE_S = 120.0
"""Long enough for a busy host to start all processes."""
DONE = b"\0"
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Measured:
    """One kind of consumer, with one number of rings in flight."""

    kind: str
    work_ms: float
    in_flight: int
    figures: Figures
    per_s: float
    cpu_ms: float


ONE, THREADS, PROCESSES = "one thread", "a thread each", "a process each"


def consume(url: str, on_ring: Callable[[Ring], None]) -> None:
    """Wait for rings until Redis goes away."""
    job_class = bound_job_class(on_ring, lambda *_: Then.GO_ON)
    with redis.Redis.from_url(url) as connection:
        Consumer(connection, uuid4().hex, job_class).work(logging_level="ERROR")


def consume_apart(url: str, worker: socket.socket) -> None:
    """Be a process that passes each ring to the worker's process and waits until it is done."""

    def hand_over(ring: Ring) -> None:
        worker.sendall(ring.execution_id.bytes)
        worker.recv(len(DONE))

    consume(url, hand_over)


def worker(kind: str, url: str, work_ms: float, driver: Connection) -> None:
    """Be the worker's process until it is killed."""
    uvloop.run(_worker(kind, url, work_ms, driver))


async def _worker(kind: str, url: str, work_ms: float, driver: Connection) -> None:
    loop = asyncio.get_running_loop()

    async def execute(execution_id: UUID) -> None:
        for _ in range(PIECES if work_ms else 0):
            until = time.thread_time() + work_ms / 1000 / PIECES
            while time.thread_time() < until:
                pass
            await asyncio.sleep(0)
        driver.send_bytes(execution_id.bytes)

    def begin(ring: Ring) -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(execute(ring.execution_id), loop)

    if kind == PROCESSES:
        await _processes(url, execute)
    free = threading.Semaphore(SLOTS - 1)

    def takes_a_slot(ring: Ring) -> None:
        begin(ring).add_done_callback(lambda _: free.release())
        free.acquire()

    def waits(ring: Ring) -> None:
        begin(ring).result()

    for on_ring in [takes_a_slot] if kind == ONE else [waits] * SLOTS:
        threading.Thread(target=consume, args=(url, on_ring), daemon=True).start()
    await asyncio.Event().wait()


async def _processes(url: str, execute: Callable[[UUID], Awaitable[None]]) -> None:
    """Run a process for each slot, and what they hand over."""

    async def listen(end: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=end)
        while True:
            await execute(UUID(bytes=await reader.readexactly(16)))
            writer.write(DONE)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(SLOTS):
            ours, theirs = socket.socketpair()
            SPAWN.Process(target=consume_apart, args=(url, theirs)).start()
            theirs.close()
            tasks.create_task(listen(ours))


class Driver:
    """Rings, and waits for the end of what it rang for."""

    def __init__(self, url: str, ended: Connection) -> None:
        self._bell = rings.Bell(redis.Redis.from_url(url))
        self._ended = ended
        self._waiting: dict[UUID, threading.Event] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def ring(self) -> float:
        """Return the seconds from ringing to the end."""
        id_, ended = new_id(), threading.Event()
        self._waiting[id_] = ended
        began = time.perf_counter()
        self._bell.ring(Ring(id_, id_))
        if not ended.wait(PATIENCE_S):
            raise RuntimeError("a ring was not answered")
        return time.perf_counter() - began

    def many(self, rounds: int, in_flight: int) -> list[float]:
        """Return the seconds of this many rings, with this many at a time."""
        with ThreadPoolExecutor(in_flight) as pool:
            return list(pool.map(lambda _: self.ring(), range(rounds)))

    def _listen(self) -> None:
        try:
            while True:
                self._waiting.pop(UUID(bytes=self._ended.recv_bytes())).set()
        except EOFError:
            return


def measure_one(url: str, kind: str, work_ms: float, rounds: int) -> list[Measured]:
    """Measure one kind of consumer, and start its worker for that."""
    ours, theirs = SPAWN.Pipe()
    started = SPAWN.Process(target=worker, args=(kind, url, work_ms, theirs))
    started.start()
    theirs.close()
    try:
        driver, process = Driver(url, ours), psutil.Process(started.pid)
        driver.many(WARM_UP * SLOTS, SLOTS)
        rows = []
        for in_flight in IN_FLIGHT:
            cpu, began = cpu_s(process), time.perf_counter()
            took = driver.many(rounds, in_flight)
            lasted, cpu = time.perf_counter() - began, cpu_s(process) - cpu
            rows.append(
                Measured(
                    kind, work_ms, in_flight, Figures.of(took),
                    round(len(took) / lasted, 1), round(1000 * cpu / len(took), 2),
                )
            )  # fmt: skip
        return rows
    finally:
        _end(started)


def _end(started: SpawnProcess) -> None:
    for each in psutil.Process(started.pid).children(recursive=True):
        each.kill()
    started.kill()
    started.join()


def measure(rounds: int) -> dict[str, Any]:
    """Measure all kinds in turn, twice, each with a Redis that has nothing from the other."""
    found: dict[tuple[str, float, int], list[Measured]] = {}
    for turn in ((ONE, THREADS, PROCESSES), (PROCESSES, THREADS, ONE)):
        for work_ms in WORK_MS:
            for kind in turn:
                with (
                    temporary_state(Settings()) as given,
                    services(given.state_dir, ephemeral=True) as running,
                ):
                    rows = measure_one(running.redis_url, kind, work_ms, rounds)
                for row in rows:
                    found.setdefault((kind, work_ms, row.in_flight), []).append(row)
    return {"rows": [_both(found[each]) for each in sorted(found)]}


def _both(rows: list[Measured]) -> dict[str, Any]:
    return {
        "kind": rows[0].kind,
        "work_ms": rows[0].work_ms,
        "in_flight": rows[0].in_flight,
        "median_ms": round(statistics.fmean(each.figures.median for each in rows), 1),
        "p95_ms": round(statistics.fmean(each.figures.p95 for each in rows), 1),
        "per_s": round(statistics.fmean(each.per_s for each in rows)),
        "cpu_ms": round(statistics.fmean(each.cpu_ms for each in rows), 2),
    }


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet(
        f"{SLOTS} slots", "work of the loop, ms", "in flight", "median, ms", "p95, ms",
        "rings/s", "processor time a ring, ms",
    )  # fmt: skip
    for row in sorted(results["rows"], key=lambda each: (each["work_ms"], each["in_flight"])):
        shown.add_row(*(str(value) for value in row.values()))
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, rounds=400)
    telemetry.configure("error", json=False)
    results = measure(given.rounds)
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
