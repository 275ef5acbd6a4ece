"""A command to a Redis that is silent fails once, and soon."""

import asyncio
import time

import pytest
import redis.asyncio
from pydantic import SecretStr
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from runner.base.short_redis import short_pool

ANSWER_S = 0.1


@pytest.mark.parametrize("connections", [None, 1], ids=["any number", "one"])
async def test_a_silent_redis_is_asked_once_and_briefly(connections: int | None) -> None:
    """The control tries again: each try is a connection."""
    tries = 0

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        pool = short_pool(SecretStr(url), answer_s=ANSWER_S, connections=connections)
        began = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            await redis.asyncio.Redis.from_pool(pool).get("key")
        assert tries == 1
        assert time.monotonic() - began < 20 * ANSWER_S
        patient = redis.asyncio.Redis.from_url(
            url, socket_timeout=ANSWER_S, retry=Retry(NoBackoff(), 2)
        )
        with pytest.raises(redis.TimeoutError):
            await patient.get("key")
        await patient.aclose()
        assert tries == 4
