"""A ring takes a slot of the node, and waits in Redis while there is none."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import cast

import pytest
import redis
from pydantic import SecretStr

from runner.embedded.services import services
from runner.node.runs.claimer import Claimer
from runner.node.runs.refusals import Refusals
from runner.node.runs.taker import RingTaker
from runner.queue.rings import RingList
from runner.words.errors import StoreUnavailable
from tests.support.deployment import state_folder
from tests.support.rings import put

SLOTS = 2


class Claims:
    """Stands for the claims of a node: each look finds one execution, which ends when told to."""

    def __init__(self) -> None:
        self.running = 0
        self.ended = 0
        self.failing: Exception | None = None
        self.may_end = asyncio.Semaphore(0)

    async def run_next(self) -> bool:
        """Run one until it may end; nothing else is left then."""
        if self.failing is not None:
            raise self.failing
        self.running += 1
        await self.may_end.acquire()
        self.running -= 1
        self.ended += 1
        return False


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Run a Redis of our own."""
    with state_folder() as folder, services(folder, ephemeral=True) as running:
        yield running.redis_url


@pytest.fixture
def connection(url: str) -> Iterator["redis.Redis"]:
    """Return a connection to an empty Redis."""
    with redis.Redis.from_url(url) as connection:
        connection.flushall()
        yield connection


@pytest.fixture
async def claims() -> Claims:
    """Return what the node claims."""
    return Claims()


@pytest.fixture
async def taker(url: str, claims: Claims) -> AsyncIterator[RingTaker]:
    """Take rings for two slots; all that was taken has ended afterwards."""
    taker = RingTaker(
        redis_url=SecretStr(url),
        claimer=cast("Claimer", claims),
        refusals=cast("Refusals", None),
        slots=SLOTS,
        instance="test",
    )
    taker.start()
    yield taker
    taker.request_stop()
    for _ in range(100):
        claims.may_end.release()
    async with asyncio.timeout(30):
        await taker.join()


async def soon(holds: Callable[[], bool]) -> None:
    """Return once it holds."""
    async with asyncio.timeout(30):
        while True:
            await asyncio.sleep(0.01)
            if holds():
                return


async def until(connection: "redis.Redis", waiting: int) -> None:
    """Return once so many rings wait in Redis."""
    await soon(lambda: connection.llen(RingList.key_of()) == waiting)


@pytest.mark.usefixtures("taker")
async def test_a_ring_waits_for_a_slot(connection: "redis.Redis", claims: Claims) -> None:
    """Another node may answer it meanwhile; when a slot is free, this one does."""
    for _ in range(5):
        put(connection)
    await until(connection, 5 - SLOTS)
    await soon(lambda: claims.running == SLOTS)
    await asyncio.sleep(0.3)
    assert connection.llen(RingList.key_of()) == 5 - SLOTS
    claims.may_end.release()
    await until(connection, 5 - SLOTS - 1)
    await soon(lambda: (claims.running, claims.ended) == (SLOTS, 1))


@pytest.mark.usefixtures("taker")
async def test_a_slot_comes_back_when_looking_failed(
    connection: "redis.Redis", claims: Claims
) -> None:
    """PostgreSQL may be away, or something unforeseen may happen."""
    for claims.failing in (StoreUnavailable("away"), RuntimeError("unforeseen")):
        for _ in range(SLOTS + 1):
            put(connection)
        await until(connection, 0)
    claims.failing = None
    for _ in range(SLOTS):
        put(connection)
    await soon(lambda: claims.running == SLOTS)


async def test_a_stop_waits_for_what_runs(
    connection: "redis.Redis", claims: Claims, taker: RingTaker
) -> None:
    """And takes no more rings, though slots become free."""
    for _ in range(SLOTS + 3):
        put(connection)
    await soon(lambda: claims.running == SLOTS)
    taker.request_stop()
    joining = asyncio.create_task(taker.join())
    done, _ = await asyncio.wait({joining}, timeout=0.3)
    assert not done
    for _ in range(SLOTS):
        claims.may_end.release()
    async with asyncio.timeout(30):
        await joining
    assert claims.ended == SLOTS
    assert connection.llen(RingList.key_of()) == 3
