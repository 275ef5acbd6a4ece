"""Rate limits: sliding windows in Redis, shared by every process.

Each key has two windows: `burst` places in any minute, and five times `per_minute` in any five
minutes. The first limits a short rush, the second a long one. A request passes if each window has a
free place, and takes as many places as it costs, at most the whole window. So requests that cost
one place never exceed a window. A request that costs more may exceed it, by less than one whole
window; then nothing passes until these places are free again. Otherwise a large request would need
an almost empty window, and small ones could keep it out for ever.

One script handles both windows, in one round trip per request, by Redis' own clock. A request that
one window refuses takes no place in the other.
"""

import asyncio
import math
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import redis.asyncio
from pydantic import SecretStr

from runner.base.rates import SUSTAINED_MINUTES, Rate
from runner.base.short_redis import short_pool
from runner.words.errors import QueueUnavailable

ANSWER_S = 1.0
"""Seconds that Redis may take to answer. It needs a millisecond; a loaded process needs more."""
SILENT = 8
"""After this many missing answers in a row, the cause is no longer this process' own load."""
AWAY_S = 1.0
"""Seconds for which Redis is then not asked. A refused connection costs nothing to try."""
CONNECTIONS = 32
PREFIX = "runner:rate:2"
"""Contains the version of the entries' format, as Redis may still hold entries of another."""

# Each key is a list of the requests that still count, newest first. An entry holds a time, how many
# places its request took, and how many were taken since the list began, including its own. So one
# entry can hold any cost, and the places that are taken follow from both ends of the list. Entries
# that have left their window are removed at the next call.
_WINDOWS = """
local ENTRY, SECOND = '>I7I4I6', 1000000
local time = redis.call('TIME')
local now = time[1] * SECOND + time[2]
local count, cost = ARGV[1] == '1', tonumber(ARGV[2])

local function entry(key, index)
  local packed = redis.call('LINDEX', key, index)
  if packed then return struct.unpack(ENTRY, packed) end
end

local sums, gone, places = {}, {}, {}
local allowed = 1
for i, key in ipairs(KEYS) do
  local quota, seconds = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local moment, weight, sum = entry(key, -1)
  while moment and moment <= now - seconds * SECOND do
    redis.call('RPOP', key)
    moment, weight, sum = entry(key, -1)
  end
  sums[i], gone[i] = 0, 0
  if moment then
    gone[i] = sum - weight
    sums[i] = select(3, entry(key, 0))
  end
  if sums[i] - gone[i] >= quota then allowed = 0 end
end
for i, key in ipairs(KEYS) do
  local quota, seconds = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  if count and allowed == 1 then
    local weight = math.min(cost, quota)
    sums[i] = sums[i] + weight
    redis.call('LPUSH', key, struct.pack(ENTRY, now, weight, sums[i]))
    redis.call('EXPIRE', key, seconds)
  end
  local taken = sums[i] - gone[i]
  -- There is room again, or more of it, once so many have left: the first entry with which they do.
  local surplus = math.max(1, taken - quota + 1)
  local first, last = 1, math.min(surplus, redis.call('LLEN', key))
  while first < last do
    local middle = math.floor((first + last) / 2)
    local enough = select(3, entry(key, -middle)) - gone[i] >= surplus
    if enough then last = middle else first = middle + 1 end
  end
  local leaving = entry(key, -first)
  local left = leaving and (leaving - now) / SECOND + seconds or 0
  places[i] = {taken, string.format('%.6f', left)}
end
return {allowed, places}
"""


@dataclass(frozen=True, slots=True)
class Window:
    """A key's state in one window. `reset_s` is the time until it has more free places than now."""

    name: str
    quota: int
    seconds: int
    remaining: int
    reset_s: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """A decision whether the request may continue, and the state of its key's windows."""

    allowed: bool
    windows: tuple[Window, ...]

    @property
    def tightest(self) -> Window:
        """The window with the fewest free places; among equals, the one that resets last."""
        return min(self.windows, key=lambda window: (window.remaining, -window.reset_s))


class RateLimiter:
    """Counts in one Redis. Whoever composes the process opens and closes it.

    `minute_s` is the length of a minute in seconds; tests make it shorter. Redis may take
    `answer_s` seconds to answer.
    """

    def __init__(
        self, redis_url: SecretStr, *, minute_s: int = 60, answer_s: float = ANSWER_S
    ) -> None:
        self._minute_s = minute_s
        self._answer_s = answer_s
        # Waiting for a turn is not waiting for Redis, and does not count as such.
        self._turns = asyncio.Semaphore(CONNECTIONS)
        # The table of route groups says what happens without an answer.
        self._pool = short_pool(redis_url, answer_s=answer_s)
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

    async def hit(self, rate: Rate, *key: str, cost: int = 1) -> Allowance:
        """Count `cost` places for the key if every window has a place. Raises QueueUnavailable."""
        return await self._ask(rate, key, count=True, cost=cost)

    async def look(self, rate: Rate, *key: str) -> Allowance:
        """Return the state of the key's windows without counting. Raises QueueUnavailable."""
        return await self._ask(rate, key, count=False, cost=1)

    async def _ask(self, rate: Rate, key: tuple[str, ...], *, count: bool, cost: int) -> Allowance:
        clock = asyncio.get_running_loop().time
        windows = self._of(rate)
        keys = [":".join((PREFIX, name, *key)) for name in windows]
        bounds = [number for window in windows.values() for number in window]
        async with self._turns:
            if clock() < self._away_until:
                raise QueueUnavailable("Redis: did not answer just now; try again")
            try:
                async with asyncio.timeout(self._answer_s):
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
        return Allowance(bool(allowed), stood)

    def _of(self, rate: Rate) -> dict[str, tuple[int, int]]:
        """Return the windows by name, each with its places and seconds."""
        minute, sustained = self._minute_s, SUSTAINED_MINUTES
        return {
            "minute": (rate.burst, minute),
            "sustained": (rate.per_minute * sustained, minute * sustained),
        }
