"""How often somebody may do something: sliding windows in Redis, shared by every process.

Two windows are kept for each key, both exact: at most `burst` in any minute, and at most five
times `per_minute` in any five minutes. The first bounds a rush, the second what goes on for long.
One script sees to both, in one round trip for each request and by Redis' own clock: a request that
one window refuses takes no place in the other. A request that is more work takes several places;
one that would take more than a window has takes the whole window.
"""

import asyncio
import math
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import redis.asyncio
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
PREFIX = "runner:rate"

# Each key is a list of the moments that still count, newest first. What has left its window goes at
# the next look, so the list's length is the count: above the quota only where that became smaller.
_WINDOWS = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local count, cost = ARGV[1] == '1', tonumber(ARGV[2])
local taken, places = {}, {}
local allowed = 1
for i, key in ipairs(KEYS) do
  local quota, seconds = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local oldest = redis.call('LINDEX', key, -1)
  while oldest and tonumber(oldest) <= now - seconds do
    redis.call('RPOP', key)
    oldest = redis.call('LINDEX', key, -1)
  end
  taken[i] = redis.call('LLEN', key)
  if taken[i] + math.min(cost, quota) > quota then allowed = 0 end
end
for i, key in ipairs(KEYS) do
  local quota, seconds = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local needed = math.min(cost, quota)
  if count and allowed == 1 then
    for _ = 1, needed do redis.call('LPUSH', key, string.format('%.6f', now)) end
    redis.call('EXPIRE', key, seconds)
    taken[i] = taken[i] + needed
    needed = 1
  end
  -- There is room again, or more of it, when this one leaves: a quota may have become smaller.
  local leaving = redis.call('LINDEX', key, -math.max(1, taken[i] - quota + needed))
  local left = leaving and tonumber(leaving) + seconds - now or 0
  places[i] = {taken[i], string.format('%.6f', left)}
end
return {allowed, places}
"""


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
        self._windows = redis.asyncio.Redis(connection_pool=self._pool).register_script(_WINDOWS)
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

    async def hit(self, rate: Rate, *key: str, cost: int = 1) -> Verdict:
        """Count so many for the key if every window has room. Raises QueueUnavailable."""
        return await self._ask(rate, key, count=True, cost=cost)

    async def look(self, rate: Rate, *key: str) -> Verdict:
        """Return where the key stands, and count nothing. Raises QueueUnavailable."""
        return await self._ask(rate, key, count=False, cost=1)

    async def _ask(self, rate: Rate, key: tuple[str, ...], *, count: bool, cost: int) -> Verdict:
        clock = asyncio.get_running_loop().time
        windows = self._of(rate)
        keys = [":".join((PREFIX, name, *key)) for name in windows]
        bounds = [number for window in windows.values() for number in window]
        async with self._turns:
            if clock() < self._away_until:
                raise QueueUnavailable("Redis: did not answer just now; try again")
            try:
                async with asyncio.timeout(ANSWER_S):
                    allowed, places = await self._windows(keys, [int(count), cost, *bounds])
            except (TimeoutError, redis.TimeoutError) as error:
                self._silent += 1
                if self._silent >= SILENT:
                    self._away_until = clock() + AWAY_S
                raise QueueUnavailable("Redis: no answer in time; try again") from error
            except redis.RedisError as error:
                raise QueueUnavailable(f"Redis: {type(error).__name__}; try again") from error
        self._silent = 0
        stood = tuple(
            Window(name, quota, seconds, max(0, quota - taken), math.ceil(float(left_s)))
            for (name, (quota, seconds)), (taken, left_s) in zip(
                windows.items(), places, strict=True
            )
        )
        return Verdict(bool(allowed), stood)

    def _of(self, rate: Rate) -> dict[str, tuple[int, int]]:
        """Return the windows by name: how many in how many seconds."""
        minute, sustained = self._minute_s, SUSTAINED_MINUTES
        return {
            "minute": (rate.burst, minute),
            "sustained": (rate.per_minute * sustained, minute * sustained),
        }
