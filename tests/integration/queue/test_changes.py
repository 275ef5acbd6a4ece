"""Announcements reach the listeners that want their kind, and nobody else."""

import asyncio
from uuid import UUID

import pytest
from pydantic import SecretStr

from runner.queue.changes import Changes, News, Watch
from runner.words.ids import new_id
from tests.support.deployment import Deployment

HEARD_S = 2.0
QUIET_S = 0.1


async def listening(changes: Changes, id_: UUID, watch: Watch) -> None:
    """Return once the subscription works and the watch has no announcement left from its start."""
    async with asyncio.timeout(10):
        while not await watch.wait(QUIET_S):
            changes.announce(id_, News.ENDED)
    while await watch.wait(QUIET_S):
        pass


@pytest.mark.parametrize("said", News)
async def test_only_the_wanted_kind_wakes(shared: Deployment, said: News) -> None:
    """It is of the watched execution; a watch without kinds hears all."""
    async with Changes(SecretStr(shared.stack.services.redis_url)) as changes:
        one, other = new_id(), new_id()
        with (
            changes.watch(one, News.ENDED, News.CANCELLING) as some,
            changes.watch(one) as every,
            changes.watch(other) as another,
        ):
            await listening(changes, one, some)
            while await every.wait(QUIET_S) or await another.wait(QUIET_S):
                pass
            changes.announce(one, said)
            assert await every.wait(HEARD_S)
            assert await some.wait(QUIET_S) is (said is not News.CHANGED)
            assert not await another.wait(QUIET_S)


async def test_an_end_does_not_wait_for_company(
    shared: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes along what has been gathered; without an end, that follows by itself."""
    monkeypatch.setattr("runner.queue.changes.GATHERED_S", 1.0)
    async with Changes(SecretStr(shared.stack.services.redis_url)) as changes:
        id_ = new_id()
        with changes.watch(id_) as watch:
            await listening(changes, id_, watch)
            changes.announce(id_)
            assert not await watch.wait(QUIET_S)
            changes.announce(id_, News.ENDED)
            assert await watch.wait(0.5)
            while await watch.wait(QUIET_S):
                pass
            changes.announce(id_)
            assert not await watch.wait(QUIET_S)
            assert await watch.wait(HEARD_S)
