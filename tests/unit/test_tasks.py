"""Work beside other work ends with it, and its failure does not go unseen."""

import asyncio

import pytest

from runner.base.tasks import beside, uninterrupted

pytestmark = pytest.mark.anyio


async def test_it_is_done_beside_the_context_and_to_its_end() -> None:
    """It does not matter which of the two takes longer."""
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.02)
        done.append("work")

    async with beside(work()):
        done.append("context")
    assert done == ["context", "work"]


async def test_its_failure_ends_the_context_at_once() -> None:
    """The context gets the failure itself, not a cancellation."""

    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError

    async with asyncio.timeout(1):
        with pytest.raises(LookupError):
            async with beside(fails()):
                await asyncio.sleep(10)


async def test_its_failure_after_the_context_is_raised_too() -> None:
    """The context waits for the work."""

    async def fails() -> None:
        await asyncio.sleep(0.02)
        raise LookupError

    with pytest.raises(LookupError):
        async with beside(fails()):
            pass


async def test_a_failure_of_the_context_leaves_it_time_to_end() -> None:
    """Work that has begun is finished."""
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.02)
        done.set()

    with pytest.raises(LookupError):
        async with beside(work()):
            raise LookupError
    assert done.is_set()


async def test_who_cancels_the_context_cancels_it() -> None:
    """This holds even if the work would not end by itself."""
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def whole() -> None:
        async with beside(work()):
            await asyncio.sleep(10)

    task = asyncio.create_task(whole())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


async def test_what_is_not_to_be_interrupted_ends_however_often_its_waiter_is_cancelled() -> None:
    """The test cancels like anyio's scopes, which cancel at each await."""
    ended = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.02)
        ended.set()

    waiting = asyncio.create_task(uninterrupted(work()))
    while not waiting.done():
        await asyncio.sleep(0)
        waiting.cancel()
    assert waiting.cancelled()
    assert ended.is_set()
