"""A Redis on another host that vanishes without a word: the process works on, and hears again."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import UUID

import pytest
import redis
from pydantic import SecretStr

from runner.base.duties import Duties
from runner.embedded.redis import PROGRAMS
from runner.queue import connections
from runner.queue.changes import Changes, News, Watch
from runner.words.ids import new_id
from tests.support.deployment import eventually
from tests.support.namespaces import further_host, in_own_network, ip

ADDRESS = "10.77.0.1"
SOON = {socket.TCP_KEEPIDLE: 1, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 1}
LOST_S = 6.0
"""Longer than the kernel takes with these times."""
HEARING = "hearing changes"


@pytest.mark.timeout(60)
def test_a_subscription_to_a_host_that_vanished_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the kernel's keepalives tell of it. Otherwise the loop would do nothing any more."""
    monkeypatch.setattr(connections, "KEEPALIVE", SOON)
    with in_own_network(), ThreadPoolExecutor(1) as here, further_host() as host, _redis():
        here.submit(ip, "link").result()  # Its thread stays in this network.

        def link(state: str) -> None:
            here.submit(ip, "link", "set", "to-other", state).result()

        with host.entered():
            asyncio.run(_survives(SecretStr(f"redis://{ADDRESS}:6379/0"), link))


async def _survives(url: SecretStr, link: Callable[[str], None]) -> None:
    duties, id_ = Duties(), new_id()
    async with Changes(url, duties) as changes:
        with changes.watch(id_, News.ENDED) as watch:
            await _heard(changes, id_, watch)
            link("down")
            async with asyncio.timeout(LOST_S):
                while HEARING not in duties.failing:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.1)
            link("up")
            await _heard(changes, id_, watch)


async def _heard(changes: Changes, id_: UUID, watch: Watch) -> None:
    """Return once an announcement comes back."""
    async with asyncio.timeout(30):
        while not await watch.wait(0.2):
            changes.announce(id_, News.ENDED)


@contextmanager
def _redis() -> Iterator[None]:
    with subprocess.Popen(
        [next(filter(shutil.which, PROGRAMS)), "--port", "6379", "--bind", ADDRESS,
         "--save", "", "--appendonly", "no", "--protected-mode", "no"],
        stdout=subprocess.DEVNULL, cwd="/",
    ) as server:  # fmt: skip
        try:
            with redis.Redis(ADDRESS) as client:
                eventually(lambda: _answers(client))
            yield
        finally:
            server.kill()


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
