"""The rate limiter's exactness with several processes at once, and its cost for a request.

It compares the two sliding windows of the library `limits`: a log of every request, like ours, and
two counters weighted by time. Then it sends a cheap request to two deployments in turn, one that
counts and one that does not, so that the ratio holds on a noisy machine. Prints a table and one
line of JSON. Usage: `python benchmarks/rate_limit.py [ROUNDS]`.
"""

import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager

import httpx
import redis
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import (
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from runner.api.edge.ratelimit import RateLimiter as Ours
from runner.base import telemetry
from runner.base.rates import Rate
from runner.base.settings import Settings
from runner.cli.address import Address
from runner.cli.demo import temporary_state
from runner.cli.embedded import deployment
from runner.embedded.services import services

ROUNDS = 500
PROCESSES, EACH = 4, 200
LIMIT = Rate(per_minute=60, burst=100)
STARTED_S = 5.0
KINDS: dict[str, type[RateLimiter]] = {
    "log": MovingWindowRateLimiter,
    "counters": SlidingWindowCounterRateLimiter,
}
MICRO = 1e6


async def hits(url: str, kind: str, key: str, times: int) -> tuple[int, float]:
    """Return how many of this many hits passed one window, and the seconds of one hit."""
    pool = redis.asyncio.ConnectionPool.from_url(url)
    # The library passes the pool on to redis unchanged, but types it for another client.
    storage = RedisStorage("async+redis://", implementation="redispy", connection_pool=pool)  # type: ignore[arg-type]
    limiter, item = KINDS[kind](storage), RateLimitItemPerMinute(LIMIT.burst)
    began = time.perf_counter()
    passed = [await limiter.hit(item, key) for _ in range(times)]
    took = time.perf_counter() - began
    await pool.disconnect()
    return sum(passed), took / times


def racing(url: str, kind: str, begin: float) -> int:
    """Send hits as one of several processes that begin together."""
    time.sleep(max(0.0, begin - time.time()))
    return asyncio.run(hits(url, kind, "raced", EACH))[0]


def exactness(url: str, kind: str) -> int:
    """Return how many hits of several processes passed in all."""
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        given = [(url, kind, time.time() + STARTED_S)] * PROCESSES
        return sum(pool.map(racing, *zip(*given, strict=True)))


async def ours(url: str, times: int) -> float:
    """Return the seconds of one hit on both our windows, including their state."""
    async with Ours(SecretStr(url)) as limiter:
        began = time.perf_counter()
        for _ in range(times):
            await limiter.hit(LIMIT, "cost")
        return (time.perf_counter() - began) / times


def bytes_of(url: str, prefix: str) -> int:
    """Return the memory of the keys with a prefix in Redis."""
    with redis.Redis.from_url(url) as connection:
        return sum(int(connection.memory_usage(key) or 0) for key in connection.keys(f"{prefix}*"))


@asynccontextmanager
async def counting(settings: Settings, *, counts: bool) -> AsyncIterator[Address]:
    """Run a deployment that counts requests, or does not."""
    with temporary_state(settings) as given:
        wide = Rate(per_minute=100_000, burst=100_000)
        limits = given.rate_limits.model_copy(update={"enterprise": wide})
        changed = {"rate_limiting": counts, "rate_limits": limits}
        async with deployment(given.model_copy(update=changed), ephemeral=True) as address:
            yield address


async def cheap_route(rounds: int) -> tuple[float, float]:
    """Return the median seconds of `GET /v1/projects` with and without counting, in turn."""
    settings = Settings()
    async with counting(settings, counts=True) as on, counting(settings, counts=False) as off:
        seconds: list[list[float]] = [[], []]
        clients = [
            httpx.AsyncClient(
                base_url=each.url, headers={"Authorization": f"Bearer {each.api_key}"}
            )
            for each in (on, off)
        ]
        for _ in range(rounds):
            for client, times in zip(clients, seconds, strict=True):
                began = time.perf_counter()
                (await client.get("/v1/projects")).raise_for_status()
                times.append(time.perf_counter() - began)
        for client in clients:
            await client.aclose()
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def main() -> None:
    """Measure and print."""
    telemetry.configure("error", json=False)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    found: dict[str, dict[str, float]] = {}
    with temporary_state(Settings()) as given, services(given.state_dir, ephemeral=True) as running:
        url = running.redis_url
        for kind in KINDS:
            passed = exactness(url, kind)
            _, hit_s = asyncio.run(hits(url, kind, "cost", rounds))
            found[kind] = {"passed": passed, "hit_us": hit_s * MICRO}
            found[kind]["bytes_a_key"] = bytes_of(url, "LIMITS") / 2
            with redis.Redis.from_url(url) as connection:
                connection.flushdb()
        limiter_us = asyncio.run(ours(url, rounds)) * MICRO
        both_bytes = bytes_of(url, "runner:rate")
    on, off = asyncio.run(cheap_route(rounds))

    console = Console()
    table = Table("one window", f"passed of {PROCESSES * EACH}", "µs a hit", "bytes a key")
    for kind, each in found.items():
        cells = (each["passed"], round(each["hit_us"]), round(each["bytes_a_key"]))
        table.add_row(kind, *map(str, cells))
    console.print(table)
    console.print(f"ours, two windows and their standing: {limiter_us:.0f} µs, {both_bytes} bytes")
    console.print(f"GET /v1/projects: {on * 1e3:.2f} ms counted, {off * 1e3:.2f} ms not")
    figures = {
        "one_window": found, "limiter_us": limiter_us, "bytes": both_bytes,
        "route_ms": {"counted": on * 1e3, "not": off * 1e3, "ratio": on / off},
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
