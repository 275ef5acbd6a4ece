"""Work that can wait is done in a quiet moment, or when it has waited long enough."""

import asyncio

import pytest

from runner.node import traffic as traffics
from runner.node.traffic import Traffic

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a moment a tenth of a second, and a long time half a second."""
    monkeypatch.setattr(traffics, "QUIET_S", 0.1)
    monkeypatch.setattr(traffics, "PATIENCE_S", 0.5)


async def test_a_worker_without_executions_is_quiet() -> None:
    """It is quiet from its start on."""
    traffic = Traffic()
    assert not traffic.busy
    async with asyncio.timeout(0.05):
        await traffic.quiet()


async def test_it_is_busy_during_an_execution_and_a_moment_after() -> None:
    """An agent's next call may be on its way."""
    traffic = Traffic()
    with traffic.passing():
        assert traffic.busy
    assert traffic.busy
    began = asyncio.get_running_loop().time()
    await traffic.quiet()
    assert 0.1 <= asyncio.get_running_loop().time() - began < 0.5
    assert not traffic.busy


async def test_the_next_execution_puts_it_off_again() -> None:
    """Work that waits for a quiet moment waits for a complete one."""
    traffic = Traffic()
    with traffic.passing():
        waiting = asyncio.create_task(traffic.quiet())
    await asyncio.sleep(0.05)
    with traffic.passing():
        await asyncio.sleep(0.1)
        assert not waiting.done()
    await waiting
    assert not traffic.busy


async def test_nothing_is_put_off_for_ever() -> None:
    """A worker that is never quiet starts and removes its sandboxes all the same."""
    traffic = Traffic()
    with traffic.passing():
        assert traffic.worth_waiting
        async with asyncio.timeout(1):
            await traffic.quiet()
        assert traffic.busy
        assert not traffic.worth_waiting
