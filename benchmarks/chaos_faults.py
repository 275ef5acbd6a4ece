"""The faults of catalogue J that can be made to happen to a running deployment, by their numbers.

`docs/operations/faults.md` says of each what an operator sees. A missing image is not here: it
cannot be taken from a Docker daemon that others use.
"""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import psutil
import redis.asyncio
from redis.exceptions import RedisError

from benchmarks import faults
from benchmarks.clock import Clock
from benchmarks.faults import Parts, a_while

JOBS = "rq:queue:executions"
"""The list of jobs that wait."""
FULL = "1"
"""A bound of memory, in bytes, that Redis is beyond at once: it then refuses every write."""
AN_HOUR_S = 3600
KILLS = 3
"""How often a poison execution's worker is killed; see RUNNER_MAX_ATTEMPTS."""


class Load(Protocol):
    """The work that goes on meanwhile, as faults need to know it."""

    async def accepted(self) -> str:
        """Return the next execution that is accepted."""
        ...

    async def ended(self) -> str:
        """Return the next execution whose end was told."""
        ...

    async def poison(self) -> str:
        """Submit an execution that runs for long and asks to be tried again; return its id."""
        ...

    async def read(self, id_: str) -> dict[str, Any]:
        """Return an execution, once the API answers."""
        ...


@dataclass(frozen=True)
class Scene:
    """A deployment, the work that it does, and what was found wrong."""

    parts: Parts
    load: Load
    clock: Clock | None
    """Of API and worker, if the fault sets it. PostgreSQL has the host's."""
    lease_s: float
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Fault:
    """One row of the catalogue. `act` returns when the part that failed is there again."""

    number: int
    name: str
    act: Callable[[Scene], Awaitable[None]]
    sets_clock: bool = False
    hits_docker: bool = False


async def worker_killed_before_start(scene: Scene) -> None:
    """Kill the worker just after an execution was accepted."""
    await scene.load.accepted()
    await asyncio.sleep(random.uniform(0, 0.2))  # noqa: S311 - no secret
    await faults.kill_worker(scene.parts)


async def worker_killed_in_a_run(scene: Scene) -> None:
    """Kill the worker at any moment, while programs run."""
    await asyncio.sleep(random.uniform(0.2, 2))  # noqa: S311 - no secret
    await faults.kill_worker(scene.parts)


async def worker_killed_after_a_result(scene: Scene) -> None:
    """Kill the worker as soon as a result is told, before it has acknowledged the job."""
    await scene.load.ended()
    await faults.kill_worker(scene.parts)


async def worker_stopped(scene: Scene) -> None:
    """Stop the worker as an operator does, and start the next."""
    await scene.parts.stack.worker.stop()
    scene.parts.stack.worker.start()


async def docker_restarted(scene: Scene) -> None:
    """Cut all connections to Docker, and refuse new ones for a while."""
    await faults.lose_docker(scene.parts)


async def docker_hangs(scene: Scene) -> None:
    """Let Docker answer nothing for a while."""
    await faults.stall_docker(scene.parts)


async def redis_lost(scene: Scene) -> None:
    """Empty Redis, kill it, and start it again."""
    process = scene.parts.stack.services.redis
    async with _redis(scene) as connection:
        await connection.flushall()
    await asyncio.to_thread(process.kill)
    await asyncio.sleep(a_while())
    await asyncio.to_thread(process.start)


async def redis_full(scene: Scene) -> None:
    """Let Redis refuse every write for a while."""
    async with _redis(scene) as connection:
        before = str((await connection.config_get("maxmemory"))["maxmemory"])
        await connection.config_set("maxmemory", FULL)
        try:
            await asyncio.sleep(a_while())
        finally:
            await connection.config_set("maxmemory", before)


async def postgres_crashed(scene: Scene) -> None:
    """Kill PostgreSQL, and start it again within the lease."""
    postgres = scene.parts.stack.services.postgres
    await asyncio.to_thread(postgres.kill)
    await asyncio.to_thread(postgres.start)


async def postgres_away(scene: Scene) -> None:
    """Stop PostgreSQL, and start it again after a while."""
    postgres = scene.parts.stack.services.postgres
    await asyncio.to_thread(postgres.stop)
    await asyncio.sleep(a_while())
    await asyncio.to_thread(postgres.start)


async def store_full(scene: Scene) -> None:
    """Let the object store take nothing for a while."""
    await faults.lose_objects(scene.parts)


async def clock_jumps(scene: Scene) -> None:
    """Set the clock of API and worker ahead by an hour, and back after a while."""
    if scene.clock is None:
        raise RuntimeError("this fault sets a clock, and there is none")
    scene.clock.set_ahead(AN_HOUR_S)
    try:
        await asyncio.sleep(a_while())
    finally:
        scene.clock.set_ahead(0)


async def api_restarted(scene: Scene) -> None:
    """Kill the API while clients follow events and output, and start it again."""
    await scene.parts.stack.api.stop(signal.SIGKILL)
    scene.parts.stack.api.start()


async def jobs_twice(scene: Scene) -> None:
    """Deliver every job that waits three times: they pile up first, as the worker hangs."""
    async with _hung(scene), _redis(scene) as connection:
        await asyncio.sleep(1)
        with suppress(RedisError):
            waiting = await connection.lrange(JOBS, 0, -1)
            for each in waiting * 2:
                await connection.rpush(JOBS, each)


async def worker_cut_off(scene: Scene) -> None:
    """Let the worker hang until its leases have run out, then go on as if nothing had been."""
    await faults.stopped(scene.parts.stack.worker.pid, scene.lease_s + 1)


async def host_crashed(scene: Scene) -> None:
    """Kill everything but the containers, and start it again."""
    stack = scene.parts.stack
    services = stack.services
    await asyncio.gather(stack.worker.stop(signal.SIGKILL), stack.api.stop(signal.SIGKILL))
    await asyncio.to_thread(services.postgres.kill)
    await asyncio.to_thread(services.redis.kill)
    await asyncio.to_thread(services.postgres.start)
    await asyncio.to_thread(services.redis.start)
    stack.api.start()
    stack.worker.start()


async def poison(scene: Scene) -> None:
    """Kill the worker at each attempt of an execution that asks to be tried again."""
    id_ = await scene.load.poison()
    for attempt in range(1, KILLS + 1):
        while True:
            found = await scene.load.read(id_)
            if (found["state"], found["attempt"]) == ("running", attempt):
                break
            await asyncio.sleep(0.05)
        await faults.kill_worker(scene.parts)
    while found["state"] in {"queued", "starting", "running"}:
        await asyncio.sleep(0.1)
        found = await scene.load.read(id_)
    reason = found["result"]["reason"]
    if reason != "attempts_exhausted":
        scene.wrong.append(f"a poison execution ended as {found['state']}, {reason}")


async def proxy_killed(scene: Scene) -> None:
    """Kill the egress proxy."""
    await faults.kill_proxy(scene.parts)


async def anything(scene: Scene) -> None:
    """Let any of the others happen."""
    await random.choice([each for each in CATALOGUE[:-1] if not each.sets_clock]).act(scene)  # noqa: S311 - no secret


CATALOGUE = (
    Fault(1, "worker killed before the container starts", worker_killed_before_start),
    Fault(2, "worker killed in a run", worker_killed_in_a_run),
    Fault(3, "worker killed after a result", worker_killed_after_a_result),
    Fault(4, "worker stopped", worker_stopped),
    Fault(5, "Docker restarted", docker_restarted, hits_docker=True),
    Fault(6, "Docker hangs", docker_hangs, hits_docker=True),
    Fault(7, "Redis emptied and restarted", redis_lost),
    Fault(8, "Redis full", redis_full),
    Fault(9, "PostgreSQL crashed", postgres_crashed),
    Fault(10, "PostgreSQL away", postgres_away),
    Fault(11, "object store takes nothing", store_full),
    Fault(12, "clock jumps by an hour", clock_jumps, sets_clock=True),
    Fault(13, "API killed while streaming", api_restarted),
    Fault(14, "jobs delivered again", jobs_twice),
    Fault(15, "worker cut off past its lease", worker_cut_off),
    Fault(17, "host crashed", host_crashed),
    Fault(18, "poison execution", poison),
    Fault(19, "egress proxy killed", proxy_killed),
    Fault(20, "any of these", anything, hits_docker=True),
)


def _redis(scene: Scene) -> "redis.asyncio.Redis":
    return redis.asyncio.Redis.from_url(
        scene.parts.stack.services.redis_url, socket_timeout=10, decode_responses=True
    )


@asynccontextmanager
async def _hung(scene: Scene) -> AsyncIterator[None]:
    """Let the worker's process stand still inside the context."""
    worker = psutil.Process(scene.parts.stack.worker.pid)
    worker.suspend()
    try:
        yield
    finally:
        worker.resume()
