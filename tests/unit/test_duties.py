"""A duty goes on for ever: no failure ends it, and none goes unseen."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from runner.base import duties as module
from runner.base.duties import Duties, for_each
from runner.words.errors import StoreUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)


async def until(holds: Callable[[], object]) -> None:
    """Wait for something; fail after a while."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.001)


class Work:
    """Work that fails once for each of its faults."""

    def __init__(self, *faults: BaseException) -> None:
        self.faults = list(faults)
        self.done = 0

    async def __call__(self) -> None:
        """Do the work once."""
        await asyncio.sleep(0)
        if self.faults:
            raise self.faults.pop(0)
        self.done += 1


@pytest.mark.parametrize(
    "fault",
    [
        StoreUnavailable("PostgreSQL: away"),
        OSError(30, "Read-only file system"),
        RuntimeError("a fault of ours"),
        asyncio.CancelledError(),
    ],
    ids=lambda fault: type(fault).__name__,
)
@pytest.mark.usefixtures("quick")
async def test_work_that_fails_is_told_and_done_again(fault: BaseException) -> None:
    """This holds for every failure, including a cancellation that nobody asked for."""
    work, duties = Work(fault), Duties()
    with capture_logs() as logs:
        async with duties.doing("work", work):
            await until(lambda: work.done)
            assert duties.failing == {}
    assert [(each["event"], each["duty"]) for each in logs] == [("duty_failed", "work")]


async def test_a_bare_task_is_silently_gone() -> None:
    """The control: the same work in a plain task is not repeated."""
    work = Work(OSError(30, "Read-only file system"))

    async def always() -> None:
        while True:
            await work()

    task = asyncio.create_task(always())
    await asyncio.wait({task}, timeout=1)
    assert (task.done(), work.done) == (True, 0)
    with contextlib.suppress(OSError):
        task.result()


async def test_what_fails_now_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as failing until it succeeds, or has gone on for a while."""
    work, duties = Work(*[RuntimeError("no")] * 1000), Duties()
    with capture_logs():
        async with duties.doing("work", work):
            await until(lambda: duties.failing == {"work": "RuntimeError"})

    async def goes_on() -> None:
        if work.faults:
            raise work.faults.pop()
        await asyncio.sleep(3600)

    work.faults = [RuntimeError("no")]
    monkeypatch.setattr(module, "STEADY_S", 0.05)
    with capture_logs():
        async with duties.doing("going on", goes_on, lasting=True):
            await until(lambda: duties.failing)
            await until(lambda: not duties.failing)


async def test_what_hangs_after_it_failed_still_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at a Docker that does not answer hangs like this, for half a minute."""
    monkeypatch.setattr(module, "STEADY_S", 0.05)
    faults, duties = [RuntimeError("no")], Duties()

    async def hangs() -> None:
        if faults:
            raise faults.pop()
        await asyncio.sleep(3600)

    with capture_logs():
        async with duties.doing("hanging", hangs):
            await until(lambda: duties.failing and not faults)
            await asyncio.sleep(0.3)
            assert duties.failing == {"hanging": "RuntimeError"}


async def test_it_is_tried_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is away for long is not asked all the time."""
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.02)
    work, duties = Work(*[RuntimeError("no")] * 1000), Duties()
    with capture_logs():
        async with duties.doing("work", work):
            await asyncio.sleep(0.5)
    assert 2 <= 1000 - len(work.faults) <= 6


async def test_it_ends_with_its_context() -> None:
    """It neither ends earlier nor goes on afterwards."""
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async with Duties().doing("work", work):
        await asyncio.sleep(0.01)
    assert ended.is_set()


async def test_it_ends_with_its_context_though_its_clean_up_fails() -> None:
    """A failure of the cleanup does not replace the cancellation."""

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise StoreUnavailable("PostgreSQL: away")

    async with asyncio.timeout(5):
        with capture_logs():
            async with Duties().doing("work", work):
                await asyncio.sleep(0.01)


async def test_what_stands_behind_one_that_fails_is_done() -> None:
    """Otherwise, one bad row would hold up all others for ever."""
    done: list[int] = []

    async def work(number: int) -> None:
        if number == 1:
            raise LookupError
        done.append(number)

    with pytest.raises(LookupError):
        await for_each([1, 2, 3], work)
    assert done == [2, 3]


async def test_a_part_that_is_away_is_not_asked_for_each() -> None:
    """The others would wait for it just as long."""
    asked: list[int] = []

    async def work(number: int) -> None:
        asked.append(number)
        raise StoreUnavailable("PostgreSQL: away")

    with pytest.raises(StoreUnavailable):
        await for_each([1, 2, 3], work)
    assert asked == [1]
