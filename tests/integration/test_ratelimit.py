"""The windows are exact, even for several processes, and quickly report an absent Redis."""

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr, ValidationError

from runner.api.edge.ratelimit import ANSWER_S, CONNECTIONS, PREFIX, SILENT, RateLimiter
from runner.base.rates import Rate
from runner.embedded.process import service_user
from runner.embedded.redis import Redis
from runner.words.errors import QueueUnavailable
from tests.support.deployment import state_folder

PROCESSES, EACH, AT_ONCE = 4, 200, 10
STARTED_S = 6.0
"""By then all of them have started."""
LIMIT = Rate(per_minute=60, burst=100)


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """Return a real Redis."""
    with state_folder() as folder, ExitStack() as stack:
        user = service_user()
        folder.chmod(0o777)
        made = Redis(sockets=folder, user=user, logs=folder, patience=1)
        made.start()
        stack.callback(made.stop)
        yield made


async def ask(url: str, key: str, times: int, rate: Rate, begin: float) -> list[bool]:
    """Ask this many times from `begin` on, a few at once; return what was allowed."""
    async with RateLimiter(SecretStr(url)) as limiter:
        # Connected by then: who had still to connect would find all given away.
        await asyncio.gather(*(limiter.look(rate, key) for _ in range(AT_ONCE)))
        await asyncio.sleep(max(0.0, begin - time.time()))
        allowed: list[bool] = []
        for _ in range(0, times, AT_ONCE):
            verdicts = await asyncio.gather(*(limiter.hit(rate, key) for _ in range(AT_ONCE)))
            allowed += [each.allowed for each in verdicts]
        return allowed


def process(url: str, key: str, begin: float) -> int:
    """Ask as one of several processes that begin together; return how often it was allowed."""
    return sum(asyncio.run(ask(url, key, EACH, LIMIT, begin)))


@pytest.mark.alone
def test_several_processes_together_get_exactly_the_limit(server: Redis) -> None:
    """Four processes send 800 requests, each 10 at once, against a limit of 100."""
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        begin = time.time() + STARTED_S
        given = [(server.url, "shared", begin)] * PROCESSES
        allowed = list(pool.map(process, *zip(*given, strict=True)))
    assert sum(allowed) == LIMIT.burst
    assert sum(count > 0 for count in allowed) > 1, "they did not run at once"


@pytest.mark.alone
async def test_the_window_slides(server: Redis) -> None:
    """No minute ever has more than `burst`, which a fixed window would allow."""
    rate, minute_s = Rate(per_minute=10, burst=10), 2
    passed: list[float] = []
    async with RateLimiter(SecretStr(server.url), minute_s=minute_s) as limiter:
        until = time.monotonic() + 3 * minute_s
        while (now := time.monotonic()) < until:
            if (await limiter.hit(rate, "sliding")).allowed:
                passed.append(now)
            await asyncio.sleep(0.01)
    for began in passed:
        assert sum(began <= each < began + minute_s * 0.98 for each in passed) <= rate.burst
    assert 25 <= len(passed) <= 40


async def test_for_long_it_is_the_sustained_rate(server: Redis) -> None:
    """A client that always asks gets a burst first; five minutes hold five times the rate."""
    rate, minute_s = Rate(per_minute=4, burst=10), 1
    passed: list[float] = []
    async with RateLimiter(SecretStr(server.url), minute_s=minute_s) as limiter:
        began = time.monotonic()
        while time.monotonic() < began + 4.5 * minute_s:
            if (await limiter.hit(rate, "sustained")).allowed:
                passed.append(time.monotonic() - began)
            await asyncio.sleep(0.01)
    assert len(passed) == 5 * rate.per_minute
    assert sum(each < 0.9 * minute_s for each in passed) == rate.burst


async def test_looking_counts_nothing(server: Redis) -> None:
    async with RateLimiter(SecretStr(server.url)) as limiter:
        stood = [await limiter.look(LIMIT, "looked") for _ in range(3)]
        assert {each.tightest.remaining for each in stood} == {LIMIT.burst}
        hit = await limiter.hit(LIMIT, "looked")
        assert hit.tightest.remaining == LIMIT.burst - 1
        assert 59 <= hit.tightest.reset_s <= 60


async def test_a_redis_that_is_gone_is_said_at_once(tmp_path: Path) -> None:
    """The next request asks again, because Redis may be back."""
    async with RateLimiter(SecretStr(f"unix://{tmp_path}/none.sock")) as limiter:
        for _ in range(2 * SILENT):
            began = time.monotonic()
            with pytest.raises(QueueUnavailable):
                await limiter.hit(LIMIT, "gone")
            assert time.monotonic() - began < ANSWER_S / 2


async def test_a_redis_that_is_silent_is_not_waited_for_again_and_again() -> None:
    """A few requests find out; all later ones are told at once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        async with RateLimiter(SecretStr(url)) as limiter:
            began = time.monotonic()
            asked = (limiter.hit(LIMIT, "silent") for _ in range(10 * CONNECTIONS))
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(answer) for answer in answers} == {QueueUnavailable}
            assert time.monotonic() - began < 2.5 * ANSWER_S


@pytest.mark.parametrize("numbers", [(0, 1), (10, 9), (10, 51), (1, 10**9), ("x", 1)], ids=repr)
def test_a_rate_makes_sense(numbers: tuple[int, int]) -> None:
    """A burst is at least the rate, and at most what the long window can hold."""
    with pytest.raises(ValidationError):
        Rate(per_minute=numbers[0], burst=numbers[1])


async def test_what_one_window_refuses_takes_no_place_in_the_other(server: Redis) -> None:
    """A client that asks beyond its burst does not use up its long-term rate."""
    rate = Rate(per_minute=10, burst=10)
    async with RateLimiter(SecretStr(server.url)) as limiter:
        verdicts = [await limiter.hit(rate, "insistent") for _ in range(30)]
    assert [each.allowed for each in verdicts] == [True] * 10 + [False] * 20
    assert [window.remaining for window in verdicts[-1].windows] == [0, 40]


async def test_a_quota_that_became_smaller_says_when_there_is_room_again(server: Redis) -> None:
    """That is not when the oldest leaves, because more than one has to."""
    async with RateLimiter(SecretStr(server.url), minute_s=4) as limiter:
        for _ in range(3):
            await limiter.hit(Rate(per_minute=3, burst=3), "lowered")
            # Apart, in the unit in which the answer is told: it tells which of them has to leave.
            await asyncio.sleep(1.0)
        stood = await limiter.look(Rate(per_minute=2, burst=2), "lowered")
    minute, _ = stood.windows
    assert (stood.allowed, minute.remaining, minute.reset_s) == (False, 0, 2)


async def test_it_asks_redis_once_for_each_request(server: Redis) -> None:
    """Every request takes this path, and its time is that of the round trips."""
    async with RateLimiter(SecretStr(server.url)) as limiter:
        await limiter.hit(LIMIT, "once")
        with redis.Redis.from_url(server.url) as client:
            asked = client.info("commandstats")["cmdstat_evalsha"]["calls"]
            for _ in range(10):
                await limiter.hit(LIMIT, "once")
            assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == asked + 10


async def test_a_request_may_cost_several_places(server: Redis) -> None:
    """It takes its cost from both windows; the last one may take more than was free."""
    async with RateLimiter(SecretStr(server.url)) as limiter:
        for left in ([36, 236], [0, 172]):
            passed = await limiter.hit(LIMIT, "costly", cost=64)
            assert passed.allowed
            assert [window.remaining for window in passed.windows] == left
        for cost in (64, 1):
            refused = await limiter.hit(LIMIT, "costly", cost=cost)
            assert not refused.allowed
            assert [window.remaining for window in refused.windows] == [0, 172]
            assert 0 < refused.tightest.reset_s <= 60


@pytest.mark.parametrize("small", [0, 1, LIMIT.burst - 1])
async def test_small_requests_do_not_keep_a_large_one_out(small: int, server: Redis) -> None:
    """One free place is enough for a cost above the window; it then takes the whole window."""
    key = f"starved-{small}"
    async with RateLimiter(SecretStr(server.url)) as limiter:
        for _ in range(small):
            await limiter.hit(LIMIT, key)
        assert (await limiter.hit(LIMIT, key, cost=10_000)).allowed
        stood = await limiter.hit(LIMIT, key, cost=10_000)
        assert not stood.allowed
        assert [window.remaining for window in stood.windows] == [0, 0]


async def test_what_was_taken_beyond_a_window_is_owed_until_it_has_left(server: Redis) -> None:
    """The reported time lasts until there is a place, and not until the oldest leaves."""
    async with RateLimiter(SecretStr(server.url), minute_s=2) as limiter:
        assert (await limiter.hit(LIMIT, "owing", cost=50)).allowed
        await asyncio.sleep(1.2)
        free = await limiter.hit(LIMIT, "owing", cost=30)
        assert free.windows[0].reset_s == 1
        owing = await limiter.hit(LIMIT, "owing", cost=80)
        assert owing.allowed
        assert owing.windows[0].reset_s == 2
        await asyncio.sleep(0.9)
        assert not (await limiter.hit(LIMIT, "owing")).allowed
        await asyncio.sleep(1.2)
        assert (await limiter.hit(LIMIT, "owing")).windows[0].remaining == LIMIT.burst - 1


async def test_what_a_request_takes_in_redis_does_not_grow_with_its_cost(server: Redis) -> None:
    """The control: with one entry per place, a large request takes as much as hundreds."""
    async with RateLimiter(SecretStr(server.url)) as limiter:
        await limiter.hit(LIMIT, "cheap")
        await limiter.hit(LIMIT, "dear", cost=10_000)
    with redis.Redis.from_url(server.url) as client:
        used = {
            name: sum(client.memory_usage(key) for key in client.keys(f"{PREFIX}:*:{name}"))
            for name in ("cheap", "dear")
        }
    assert 0 < used["dear"] <= used["cheap"] + 2 * 8
