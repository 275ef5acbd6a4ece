"""One tenant has a share of the proxy: time, turns and connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import pytest

from runner.egress.share import SLICE_S, Share, Slots

pytestmark = pytest.mark.alone


def busy(seconds: float) -> None:
    """Hold up the loop."""
    until = perf_counter() + seconds
    while perf_counter() < until:
        pass


async def working(share: Share, *, takes_turns: bool = True) -> None:
    """Work without end, and wait for nothing but a turn."""
    while True:
        busy(SLICE_S / 10)
        if takes_turns:
            await share.turn()


@asynccontextmanager
async def crowd(*shares: Share) -> AsyncIterator[None]:
    """Have ten tasks of each share work inside the context."""
    tasks = [share.start(working(share)) for share in shares for _ in range(10)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def passes(number: int) -> float:
    """Return how long this many passes of the loop take."""
    began = perf_counter()
    for _ in range(number):
        await asyncio.sleep(0)
    return perf_counter() - began


async def test_a_pass_takes_a_slice_for_each_tenant_not_for_each_connection() -> None:
    """The control: ten tenants with one connection each take a slice each."""
    share = Share()
    async with crowd(share):
        await passes(20)
        together = await passes(50)
    shares = [Share() for _ in range(10)]
    tasks = [each.start(working(each)) for each in shares]
    await passes(20)
    apart = await passes(50)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert together * 3 < apart


async def test_within_a_tenant_every_connection_has_its_turn() -> None:
    """Turns follow the order of arrival."""
    share = Share()
    rounds = [0] * 10

    async def counting(at: int) -> None:
        while True:
            busy(SLICE_S)
            rounds[at] += 1
            await share.turn()

    tasks = [share.start(counting(at)) for at in range(10)]
    await passes(200)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert max(rounds) - min(rounds) <= 2
    assert min(rounds) > 5


async def test_who_has_used_little_does_not_wait() -> None:
    """Such a turn is not a pass of the loop."""
    share = Share()
    others: list[str] = []
    asyncio.get_running_loop().call_soon(others.append, "ran")
    await share.turn()
    assert others == []


async def test_what_a_task_returns_raises_and_is_cancelled_by_comes_through() -> None:
    """Measuring a task changes nothing about it."""
    share = Share()

    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("as it is")

    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "cancelled"
        return "ended"

    with pytest.raises(ValueError, match="as it is"):
        await share.start(failing())
    task = share.start(stubborn())
    await passes(3)
    task.cancel()
    assert await task == "cancelled"
    unstarted = share.start(stubborn())
    unstarted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unstarted


async def taken(slots: Slots, share: Share) -> int:
    """Take as many slots at once as possible, and return their number."""
    number = 0
    while True:
        taking = asyncio.create_task(slots.take(share))
        await passes(2)
        if not taking.done():
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            return number
        number += 1


async def test_a_tenant_never_gets_more_connections_than_it_leaves() -> None:
    """Alone, it gets half of them; two get a third each, so the next one always gets some."""
    slots = Slots(100)
    assert [await taken(slots, Share()) for _ in range(3)] == [50, 25, 13]


async def test_a_slot_that_is_given_back_goes_to_who_waits_longest() -> None:
    """A connection that gave up waiting is passed over, and no slot is lost."""
    slots, share = Slots(4), Share()
    await slots.take(share)
    await slots.take(share)
    first, second, third = (asyncio.create_task(slots.take(share)) for _ in range(3))
    await passes(2)
    first.cancel()
    await passes(2)
    slots.give(share)
    await passes(2)
    assert [each.done() for each in (second, third)] == [True, False]
    third.cancel()
    slots.give(share)
    await asyncio.gather(first, third, return_exceptions=True)
    assert share.connections == 1
    slots.give(share)
    assert await taken(slots, Share()) == 2
