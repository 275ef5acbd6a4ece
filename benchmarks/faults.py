"""Failures of the parts of a deployment, one after another, while it serves.

Docker and the object store are reached over a network of the stress's own. The daemon is the
host's, and others may use it: it is never touched. What the worker sees is what it would see of a
daemon that is killed and started again, or that hangs: connections end in the middle of an answer,
new ones are refused, and whatever is asked is done or not. The containers live on, as with Docker's
`live-restore`.
"""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
from pydantic import SecretStr

from runner.base.settings import Settings
from runner.embedded.stack import Stack
from tests.support.buckets import bucket
from tests.support.networks import Network
from tests.support.nodes import free_port

PAUSE_S = (8.0, 20.0)
AWAY_S = (1.0, 4.0)
UNIX = "unix://"


@dataclass(frozen=True)
class Far:
    """The two parts that a deployment reaches over a network which can fail."""

    settings: Settings
    """Lead to both, for the deployment."""
    docker: Network
    objects: Network

    @classmethod
    @asynccontextmanager
    async def between(cls, settings: Settings) -> AsyncIterator[Self]:
        """Lay networks to the settings' Docker and to an S3 server that ends with the context.

        Raises RuntimeError unless Docker is at a Unix socket.
        """
        if not settings.docker_url.startswith(UNIX):
            raise RuntimeError(f"Docker must be at a Unix socket, not at {settings.docker_url}")
        docker, objects = Network(), Network()
        real, here = Path(settings.docker_url.removeprefix(UNIX)), settings.state_dir / "docker"
        port = free_port()
        with ExitStack() as open_:
            store = await asyncio.to_thread(lambda: open_.enter_context(bucket()))
            server = int(store["objects_endpoint"].rpartition(":")[2])
            async with docker.to(real, here), objects.to(server, port):
                changed = {
                    "docker_url": f"{UNIX}{here}",
                    "objects_url": store["objects_url"],
                    "objects_endpoint": f"http://127.0.0.1:{port}",
                    "objects_access_key": SecretStr(store["objects_access_key"]),
                    "objects_secret_key": SecretStr(store["objects_secret_key"]),
                }
                yield cls(settings.model_copy(update=changed), docker, objects)


@dataclass(frozen=True)
class Parts:
    """Everything that may fail."""

    stack: Stack
    far: Far


async def kill_worker(parts: Parts) -> None:
    """End the worker as a crash would, and start the next."""
    await parts.stack.worker.stop(signal.SIGKILL)
    await asyncio.sleep(random.uniform(0, 1))  # noqa: S311 - no secret
    parts.stack.worker.start()


async def stall_postgres(parts: Parts) -> None:
    """Stop PostgreSQL for a while: connections stay open and nothing answers."""
    await stopped(parts.stack.services.postgres.pid, a_while())


async def stall_redis(parts: Parts) -> None:
    """Stop Redis for a while."""
    await stopped(parts.stack.services.redis.pid, a_while())


async def kill_proxy(parts: Parts) -> None:
    """End the egress proxy as a crash would."""
    for child in psutil.Process(parts.stack.worker.pid).children():
        if "runner.egress" in child.cmdline():
            child.kill()


async def lose_docker(parts: Parts) -> None:
    """Cut all connections to Docker, and refuse new ones for a while."""
    await _lost(parts.far.docker)


async def stall_docker(parts: Parts) -> None:
    """Let Docker answer nothing for a while."""
    await _stalled(parts.far.docker)


async def lose_objects(parts: Parts) -> None:
    """Cut all connections to the object store, and refuse new ones for a while."""
    await _lost(parts.far.objects)


async def stall_objects(parts: Parts) -> None:
    """Let the object store answer nothing for a while."""
    await _stalled(parts.far.objects)


FAULTS: tuple[Callable[[Parts], Awaitable[None]], ...] = (
    kill_worker, stall_postgres, stall_redis, kill_proxy, lose_docker, stall_docker, lose_objects,
    stall_objects,
)  # fmt: skip


async def one_after_another(parts: Parts, done: Counter[str]) -> None:
    """Make one part after another fail and come back, until cancelled; count what was done."""
    while True:
        for fault in random.sample(FAULTS, len(FAULTS)):
            await asyncio.sleep(random.uniform(*PAUSE_S))  # noqa: S311 - no secret
            await fault(parts)
            done[fault.__name__] += 1


def a_while() -> float:
    """Return for how many seconds a part is away."""
    return random.uniform(*AWAY_S)  # noqa: S311 - no secret


async def _lost(network: Network) -> None:
    network.cut()
    try:
        await asyncio.sleep(a_while())
    finally:
        await network.restore()


async def _stalled(network: Network) -> None:
    network.open.clear()
    try:
        await asyncio.sleep(a_while())
    finally:
        network.open.set()


async def stopped(pid: int, seconds: float) -> None:
    """Stop a process and its children for this time, as if its host hung."""
    parent = psutil.Process(pid)
    held = [parent]
    parent.suspend()
    try:
        for child in parent.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.suspend()
                held.append(child)
        await asyncio.sleep(seconds)
    finally:
        for each in held:
            with suppress(psutil.NoSuchProcess):
                each.resume()
