"""What the proxy has reached or refused is on record, however the connection ends."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.proxying import METHODS, Speak, Way, in_process, policy, recording

HOST = "example.test"
PATIENCE_S = 60.0


async def told(way: Way) -> None:
    """Wait for the first decision."""
    async with asyncio.timeout(PATIENCE_S):
        while not way.told:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.01)


async def test_a_client_that_hangs_up_at_once_has_reached_the_server(tmp_path: Path) -> None:
    """The proxy has connected by the time at which nobody is left to be told of it."""
    async with recording() as server:
        where = f"{HOST}:{server.port}"
        async with in_process(tmp_path, policy(where)) as way:
            async with way.connection() as (_, writer):
                writer.write(f"CONNECT {where} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await told(way)
    assert server.connections == 1
    (decision,) = way.told
    assert (decision.outcome, decision.host, decision.address) == ("allowed", HOST, "127.0.0.1")


@pytest.mark.parametrize("speak", METHODS.values(), ids=METHODS)
async def test_a_fault_of_the_proxy_is_a_refusal(tmp_path: Path, speak: Speak) -> None:
    """Otherwise, a program could reach nothing, and nobody could tell why."""

    async def failing(_: str) -> Sequence[Any]:
        raise RuntimeError("can't start new thread")

    given = policy(f"http://{HOST}")
    async with in_process(tmp_path, given, lookup=failing) as way:
        assert b"200" not in await way.say(*speak(HOST.encode(), 80))
        await told(way)
    (decision,) = way.told
    assert (decision.outcome, decision.reason) == ("denied", "proxy_failed")
    assert (decision.host, decision.port) == (HOST, 80)
    assert "RuntimeError" in decision.detail
