"""A sandbox is paused and resumed while PostgreSQL, Docker or the caller fails."""

import asyncio
from collections.abc import Mapping

import pytest

from runner.audit.events import Action
from runner.node.residents.freezing import Freezing
from runner.words.errors import Conflict, DockerUnavailable, SandboxEnded, StoreUnavailable
from runner.words.execution import JSON
from runner.words.lives import Life, may_become


class Played:
    """A sandbox and its row. Both fail as often as they are told to."""

    def __init__(self, *, paused: bool = False, row: Life = Life.RUNNING) -> None:
        self.paused = paused
        self.row = row
        self.over = False
        self.docker_fails = 0
        self.store_fails: dict[Life, int] = {}
        self.held = asyncio.Event()
        self.held.set()

    async def pause(self) -> None:
        """Freeze it."""
        await self._docker(paused=True)

    async def resume(self) -> None:
        """Thaw it."""
        await self._docker(paused=False)

    async def _docker(self, *, paused: bool) -> None:
        await self.held.wait()
        if self.docker_fails:
            self.docker_fails -= 1
            raise DockerUnavailable("played")
        self.paused = paused

    async def store(self, life: Life, _action: Action | None, _: Mapping[str, JSON], /) -> None:
        """Write its row."""
        if self.store_fails.get(life):
            self.store_fails[life] -= 1
            raise StoreUnavailable("played")
        assert life is self.row or may_become(self.row, life)
        self.row = life

    def require(self) -> None:
        """Refuse if it has ended."""
        if self.over:
            raise SandboxEnded("played")


def freezing(played: Played) -> Freezing:
    return Freezing(played, played.store, played.require)


async def pausing(played: Played) -> None:
    """Wait until its row says that it is being paused."""
    while played.row is not Life.PAUSING:  # noqa: ASYNC110 - rows tell nobody
        await asyncio.sleep(0)


async def nothing() -> None:
    """Do nothing before it goes on."""


async def test_a_row_that_cannot_be_written_at_once_is_written_later() -> None:
    played = Played()
    states = freezing(played)
    played.store_fails = {Life.PAUSED: 2, Life.RUNNING: 2}
    await states.pause({})
    assert (played.row, states.life, played.paused) == (Life.PAUSED, Life.PAUSED, True)
    await states.resume(nothing)
    assert (played.row, states.life, played.paused) == (Life.RUNNING, Life.RUNNING, False)


async def test_who_asks_and_leaves_leaves_nothing_half_done() -> None:
    """A stopping worker waits for it as well."""
    played = Played()
    states = freezing(played)
    played.held.clear()
    asking = asyncio.create_task(states.pause({}))
    await pausing(played)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert played.row is Life.PAUSING
    asyncio.get_running_loop().call_later(0.05, played.held.set)
    await states.settle(60)
    assert (played.row, states.life, played.paused) == (Life.PAUSED, Life.PAUSED, True)


async def test_a_change_that_lasts_too_long_is_left_to_the_next_process() -> None:
    played = Played()
    states = freezing(played)
    played.held.clear()
    asking = asyncio.create_task(states.pause({}))
    await pausing(played)
    await states.settle(0.01)
    with pytest.raises(asyncio.CancelledError):
        await asking
    played.held.set()
    later = freezing(played)
    await later.take_over(played.row)
    assert (played.row, later.life, played.paused) == (Life.RUNNING, Life.RUNNING, False)


async def test_what_docker_refuses_leaves_it_as_it_was() -> None:
    played = Played()
    states = freezing(played)
    played.docker_fails = 1
    with pytest.raises(DockerUnavailable):
        await states.pause({})
    assert (played.row, states.life) == (Life.RUNNING, Life.RUNNING)
    await states.pause({})
    played.docker_fails = 1
    with pytest.raises(DockerUnavailable):
        await states.resume(nothing)
    assert (played.row, states.life, played.paused) == (Life.PAUSED, Life.PAUSED, True)


@pytest.mark.parametrize("then", [Life.PAUSED, Life.RUNNING])
@pytest.mark.parametrize("between", [Life.PAUSING, Life.RESUMING])
async def test_from_between_it_goes_either_way(between: Life, then: Life) -> None:
    """If Docker does not answer at all, the state stays, because nobody knows the real one."""
    played = Played()
    states = freezing(played)
    if between is Life.RESUMING:
        await states.pause({})
    played.docker_fails = 2
    with pytest.raises(DockerUnavailable):
        await (states.resume(nothing) if between is Life.RESUMING else states.pause({}))
    assert (played.row, states.life) == (between, between)
    await (states.pause({}) if then is Life.PAUSED else states.resume(nothing))
    assert (played.row, states.life, played.paused) == (then, then, then is Life.PAUSED)


@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("row", [Life.RUNNING, Life.PAUSING, Life.PAUSED, Life.RESUMING])
async def test_taken_over_it_is_as_its_row_says(row: Life, paused: bool) -> None:
    played = Played(paused=paused, row=row)
    states = freezing(played)
    await states.take_over(row)
    ends = Life.PAUSED if row is Life.PAUSED else Life.RUNNING
    assert (played.row, states.life, played.paused) == (ends, ends, ends is Life.PAUSED)


async def test_one_that_ends_is_not_changed() -> None:
    played = Played()
    played.over = True
    with pytest.raises(SandboxEnded):
        await freezing(played).pause({})


async def test_a_paused_one_is_thawed_for_work_and_its_row_stays_paused() -> None:
    """If the work fails, it is frozen again, and may be resumed as before."""
    played = Played(paused=True)
    states = freezing(played)
    await states.pause({})

    async def work() -> None:
        assert (played.row, played.paused) == (Life.PAUSED, False)
        raise StoreUnavailable("played")

    with pytest.raises(StoreUnavailable):
        await states.borrow(work)
    assert (played.row, states.life, played.paused) == (Life.PAUSED, Life.PAUSED, True)
    await states.resume(nothing)
    assert (played.row, played.paused) == (Life.RUNNING, False)
    with pytest.raises(Conflict, match="no longer paused"):
        await states.borrow(work)


async def test_who_resumes_it_comes_before_the_work() -> None:
    """However long that would take."""
    played = Played(paused=True)
    states = freezing(played)
    await states.pause({})
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    working = asyncio.create_task(states.borrow(work))
    await begun.wait()
    async with asyncio.timeout(10):
        await states.resume(nothing)
    with pytest.raises(Conflict, match="resumed meanwhile"):
        await working
    assert (played.row, states.life, played.paused) == (Life.RUNNING, Life.RUNNING, False)


async def test_a_stopping_worker_leaves_it_paused() -> None:
    played = Played(paused=True)
    states = freezing(played)
    await states.pause({})
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    working = asyncio.create_task(states.borrow(work))
    await begun.wait()
    await states.settle(0.05)
    assert played.paused
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
