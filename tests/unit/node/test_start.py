"""A start is recorded before its program, while it runs, or with an end that comes soon."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from runner.node.runs.start import Start

pytestmark = pytest.mark.anyio


def start() -> Start:
    """Return a start that has a record."""
    return Start(lambda: "record")


class Store:
    """Remembers what was recorded."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self.stored: list[str] = []
        self.done = asyncio.Event()

    async def __call__(self) -> None:
        """Record it."""
        self.stored.append(self._start.begun().record)
        self.done.set()


async def test_a_short_run_s_start_is_left_for_its_end() -> None:
    """It is stored with how long ago it was."""
    begun = start()
    store = Store(begun)
    async with begun.recorded(store, ahead=False):
        await begun.begin()
    assert store.stored == []
    await asyncio.sleep(0.01)
    left = begun.unrecorded()
    assert left is not None
    assert left.record == "record"
    assert left.ago.total_seconds() >= 0.01


async def test_a_longer_run_s_start_is_on_record_while_it_runs() -> None:
    """It is recorded once, and nothing is left for the end."""
    begun = start()
    store = Store(begun)
    async with begun.recorded(store, ahead=False):
        await begun.begin()
        async with asyncio.timeout(5):
            await store.done.wait()
    assert store.stored == ["record"]
    assert begun.unrecorded() is None


async def test_what_may_have_effects_begins_on_record() -> None:
    """It is not recorded a second time when the program really begins."""
    begun = start()
    store = Store(begun)
    async with begun.recorded(store, ahead=True):
        assert store.stored == ["record"]
        await begun.begin()
    assert store.stored == ["record"]
    assert begun.unrecorded() is None


async def test_a_start_whose_recording_was_cancelled_is_in_doubt() -> None:
    """It may be stored all the same, so whoever writes the end has to check."""
    begun = start()
    stored = asyncio.Event()

    async def store() -> None:
        stored.set()
        await asyncio.sleep(60)  # PostgreSQL has it, and its answer does not come

    async def run() -> None:
        async with begun.recorded(store, ahead=False):
            await begun.begin()
            await asyncio.sleep(60)

    running = asyncio.create_task(run())
    async with asyncio.timeout(5):
        await stored.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert begun.doubtful
    assert begun.unrecorded() is not None
    begun.found()
    assert begun.unrecorded() is None


async def test_what_never_began_is_never_recorded() -> None:
    """For example, its command did not exist, or its sandbox died."""
    begun = start()
    store = Store(begun)
    async with begun.recorded(store, ahead=False):
        pass
    assert store.stored == []
    assert begun.unrecorded() is None
    with pytest.raises(RuntimeError, match="has not begun"):
        begun.begun()


async def test_a_start_that_cannot_be_recorded_ends_the_run() -> None:
    """The attempt belongs to another worker, so its program must not continue."""

    async def lost() -> None:
        raise LookupError

    begun = start()

    async def run(store: Callable[[], Awaitable[None]]) -> None:
        async with begun.recorded(store, ahead=False):
            await begun.begin()
            await asyncio.sleep(60)

    async with asyncio.timeout(5):
        with pytest.raises(LookupError):
            await run(lost)


async def test_what_cannot_be_recorded_ahead_does_not_begin() -> None:
    """Then nothing is sent to its sandbox."""
    ran = False

    async def lost() -> None:
        raise LookupError

    async def run() -> None:
        nonlocal ran
        async with start().recorded(lost, ahead=True):
            ran = True

    with pytest.raises(LookupError):
        await run()
    assert not ran
