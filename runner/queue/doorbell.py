"""Ringing: tells a worker that something waits. If a ring is lost, only time is lost."""

import asyncio
import time
from types import TracebackType
from typing import Self
from uuid import UUID

import redis
from pydantic import SecretStr

from runner.queue.connections import connect
from runner.queue.producer import RingQueue
from runner.queue.ring import Ring
from runner.words.errors import QueueUnavailable

FRESH_S = 1.0
"""Seconds for which one answer of Redis vouches for the next; it may go away at any time."""


class Doorbell:
    """The API's end of the queue. RQ is synchronous, so calls go through a thread."""

    def __init__(self, redis_url: SecretStr) -> None:
        self._redis = connect(redis_url)
        self._queue = RingQueue(self._redis)
        self._answered = -FRESH_S

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._redis.close()

    async def ping(self) -> None:
        """Return if Redis can take a ring. Raises QueueUnavailable."""
        try:
            await asyncio.to_thread(self._redis.ping)
        except redis.RedisError as error:
            raise QueueUnavailable(f"Redis: {type(error).__name__}; try again") from error
        self._answered = time.monotonic()

    async def require(self) -> None:
        """Return if Redis can take a ring, or could a moment ago. Raises QueueUnavailable."""
        if time.monotonic() > self._answered + FRESH_S:
            await self.ping()

    async def ring(self, tenant_id: UUID, execution_id: UUID) -> None:
        """Ring for a stored execution. Raises QueueUnavailable."""
        try:
            await asyncio.to_thread(self._queue.put, Ring(tenant_id, execution_id))
        except redis.RedisError as error:
            self._answered = -FRESH_S
            raise QueueUnavailable(f"Redis: {type(error).__name__}; try again") from error

    async def waiting(self) -> int:
        """Return how many rings no worker has answered yet. Raises QueueUnavailable."""
        try:
            return await asyncio.to_thread(self._queue.waiting)
        except redis.RedisError as error:
            raise QueueUnavailable(f"Redis: {type(error).__name__}; try again") from error
