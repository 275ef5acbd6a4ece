"""How often somebody may do something: sliding windows in Redis, shared by every process.

Two windows are kept for each key, both exact: at most `burst` in any minute, and at most five
times `per_minute` in any five minutes. The first bounds a rush, the second what goes on for long.
A request that the long window refuses has taken its place in the short one.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import redis.asyncio
from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from pydantic import SecretStr
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from runner.errors import QueueUnavailable
from runner.settings import SUSTAINED_MINUTES, Rate

ANSWER_S = 1.0
"""How long Redis may take, once it is asked. It takes a millisecond; a process under load more."""
SILENT = 8
"""So many answers missing, and none between them, are no longer this process' own load."""
AWAY_S = 1.0
"""How long Redis is then not asked again. A connection that is refused costs nothing to try."""
CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Window:
    """Where a key stands in one of its windows. `reset_s` is until the oldest entry leaves it."""

    name: str
    quota: int
    seconds: int
    remaining: int
    reset_s: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the request may go on, and where its key stands."""

    allowed: bool
    windows: tuple[Window, ...]

    @property
    def tightest(self) -> Window:
        """The window with the least left; of those, the one that takes longest to have more."""
        return min(self.windows, key=lambda window: (window.remaining, -window.reset_s))


@dataclass(frozen=True, slots=True)
class _Item:
    name: str
    item: RateLimitItemPerSecond


class RateLimiter:
    """Counts in one Redis. Whoever composes the process opens and closes it.

    `minute_s` is how many seconds a minute has: fewer where nobody wants to wait for one.
    """

    def __init__(self, redis_url: SecretStr, *, minute_s: int = 60) -> None:
        self._minute_s = minute_s
        # Waiting for one's turn is not waiting for Redis, and is not held against it.
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._pool = redis.asyncio.ConnectionPool.from_url(
            redis_url.get_secret_value(),
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            # Whether to try again is the caller's decision, made by the table of route groups.
            retry=Retry(NoBackoff(), 0),
        )
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix="runner:rate",
            connection_pool=self._pool,  # type: ignore[arg-type] # passed on to redis as it is
        )
        self._windows = MovingWindowRateLimiter(storage)
        self._silent = 0
        self._away_until = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._pool.disconnect()

    async def hit(self, rate: Rate, *key: str) -> Verdict:
        """Count one for the key if every window has room. Raises QueueUnavailable."""
        return await self._answered(lambda: self._hit(self._items(rate), key))

    async def look(self, rate: Rate, *key: str) -> Verdict:
        """Return where the key stands, and count nothing. Raises QueueUnavailable."""
        return await self._answered(lambda: self._look(self._items(rate), key))

    async def _hit(self, items: tuple[_Item, ...], key: tuple[str, ...]) -> Verdict:
        allowed = True
        for each in items:
            allowed = allowed and await self._windows.hit(each.item, *key)
        stood = await self._look(items, key)
        return Verdict(allowed, stood.windows)

    async def _look(self, items: tuple[_Item, ...], key: tuple[str, ...]) -> Verdict:
        windows = tuple(await asyncio.gather(*(self._window(each, key) for each in items)))
        return Verdict(all(window.remaining > 0 for window in windows), windows)

    async def _window(self, each: _Item, key: tuple[str, ...]) -> Window:
        stats = await self._windows.get_window_stats(each.item, *key)
        left_s = (
            max(0.0, stats.reset_time - time.time()) if stats.remaining < each.item.amount else 0
        )
        return Window(
            name=each.name,
            quota=each.item.amount,
            seconds=each.item.get_expiry(),
            remaining=max(0, stats.remaining),
            reset_s=math.ceil(left_s),
        )

    def _items(self, rate: Rate) -> tuple[_Item, ...]:
        minute, sustained = self._minute_s, SUSTAINED_MINUTES
        return (
            _Item("minute", RateLimitItemPerSecond(rate.burst, minute)),
            _Item(
                "sustained", RateLimitItemPerSecond(rate.per_minute * sustained, minute * sustained)
            ),
        )

    async def _answered(self, ask: Callable[[], Awaitable[Verdict]]) -> Verdict:
        clock = asyncio.get_running_loop().time
        async with self._turns:
            if clock() < self._away_until:
                raise QueueUnavailable("Redis: did not answer just now; try again")
            try:
                async with asyncio.timeout(ANSWER_S):
                    verdict = await ask()
            except (TimeoutError, redis.TimeoutError) as error:
                self._silent += 1
                if self._silent >= SILENT:
                    self._away_until = clock() + AWAY_S
                raise QueueUnavailable("Redis: no answer in time; try again") from error
            except redis.RedisError as error:
                raise QueueUnavailable(f"Redis: {type(error).__name__}; try again") from error
        self._silent = 0
        return verdict
