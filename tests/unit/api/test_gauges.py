"""Anybody may ask for the deployment's gauges; PostgreSQL is asked once a second at most."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from runner.api import gauges
from runner.api.gauges import DeploymentGauges
from runner.store.db import Database
from runner.words.errors import StoreUnavailable


class PlayedDatabase:
    """Counts readings, each of which takes as long as `answers` is not set."""

    def __init__(self) -> None:
        self.readings = 0
        self.answers = asyncio.Event()
        self.fails = False

    @asynccontextmanager
    async def no_tenant(self) -> AsyncIterator["PlayedDatabase"]:
        """Count a reading, and hold it up."""
        self.readings += 1
        await self.answers.wait()
        if self.fails:
            raise StoreUnavailable("PostgreSQL does not answer")
        yield self

    async def all(self, name: str) -> list[dict[str, Any]]:
        """Return one state's count, and nothing else."""
        return [{"state": "queued", "executions": 7}] if name == "scheduling.state_counts" else []

    async def one(self, _: str) -> None:
        """Return nothing."""


@pytest.fixture
async def played() -> PlayedDatabase:
    return PlayedDatabase()


@pytest.fixture
def found(played: PlayedDatabase) -> DeploymentGauges:
    return DeploymentGauges(cast(Database, played))


async def asked(found: DeploymentGauges, many: int) -> list["asyncio.Task[bytes]"]:
    """Let many clients ask, and return once all of them wait."""
    asking = [asyncio.create_task(found.text()) for _ in range(many)]
    for _ in range(5):
        await asyncio.sleep(0)
    return asking


async def test_one_reading_serves_all_who_ask(
    played: PlayedDatabase, found: DeploymentGauges
) -> None:
    asking = await asked(found, 50)
    played.answers.set()
    texts = await asyncio.gather(*asking)
    assert all(b'runner_executions{state="queued"} 7.0' in text for text in texts)
    await asyncio.gather(*await asked(found, 50))
    assert played.readings == 1


async def test_gauges_are_read_again_once_they_are_old(
    played: PlayedDatabase, found: DeploymentGauges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above."""
    monkeypatch.setattr(gauges, "KEPT_S", 0.0)
    played.answers.set()
    for _ in range(3):
        await found.text()
    assert played.readings == 3


async def test_a_client_that_hangs_up_takes_the_reading_from_nobody(
    played: PlayedDatabase, found: DeploymentGauges
) -> None:
    first, second = await asked(found, 2)
    first.cancel()
    await asyncio.wait({first})
    played.answers.set()
    assert b"runner_executions" in await second
    assert played.readings == 1


async def test_a_reading_that_failed_is_not_kept(
    played: PlayedDatabase, found: DeploymentGauges
) -> None:
    played.answers.set()
    played.fails = True
    with pytest.raises(StoreUnavailable):
        await found.text()
    played.fails = False
    assert b"runner_executions" in await found.text()
