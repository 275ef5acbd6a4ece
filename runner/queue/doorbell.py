"""Ringing: tells a worker that something waits. If a ring is lost, only time is lost."""

import time
from types import TracebackType
from typing import Self
from uuid import UUID

from pydantic import SecretStr
from redis.exceptions import RedisError

from runner.queue.connections import connect_async
from runner.queue.producer import RingMaker
from runner.queue.ring import Ring
from runner.queue.rings import RingList
from runner.words.errors import QueueUnavailable

FRESH_S = 1.0
"""Seconds for which one answer of Redis vouches for the next; it may go away at any time."""


class Doorbell:
    """The API's end of the queue. RQ says what to tell Redis, and this tells it."""

    def __init__(self, redis_url: SecretStr) -> None:
        self._redis = connect_async(redis_url)
        self._rings = RingMaker()
        self._answered = -FRESH_S

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._redis.aclose()

    async def ping(self) -> None:
        """Return if Redis can take a ring. Raises QueueUnavailable."""
        try:
            await self._redis.ping()
        except RedisError as error:
            raise QueueUnavailable(f"Redis: {type(error).__name__}; try again") from error
        self._answered = time.monotonic()

    async def require(self) -> None:
        """Return if Redis can take a ring, or could a moment ago. Raises QueueUnavailable."""
        if time.monotonic() > self._answered + FRESH_S:
            await self.ping()

    async def ring(self, tenant_id: UUID, execution_id: UUID) -> None:
        """Ring for a stored execution. Raises QueueUnavailable."""
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                for command in self._rings.commands(Ring(tenant_id, execution_id)):
                    pipeline.execute_command(*command)
                await pipeline.execute()
        except RedisError as error:
            self._answered = -FRESH_S
            raise QueueUnavailable(f"Redis: {type(error).__name__}; try again") from error

    async def waiting(self) -> int:
        """Return how many rings no worker has answered yet. Raises QueueUnavailable."""
        try:
            return int(await self._redis.llen(RingList.key_of()))
        except RedisError as error:
            raise QueueUnavailable(f"Redis: {type(error).__name__}; try again") from error
