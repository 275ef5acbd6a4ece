"""Attempts are counted in a real Redis: waits grow, and no owner is locked out."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from pydantic import SecretStr

from runner.auth.throttle import Throttle, Windows, site
from runner.embedded.services import Services, services
from runner.words.errors import QueueUnavailable, TooManyAttempts
from tests.support.deployment import state_folder

QUICK = Windows(
    pair=((3, 1), (5, 3), (7, 60)), address=((20, 2), (40, 60)), account=((10, 2), (30, 60))
)
"""The default windows in seconds instead of minutes and hours."""


@pytest.fixture(scope="module")
def running() -> Iterator[Services]:
    """Return running services."""
    with state_folder() as folder, services(folder, ephemeral=True) as made:
        yield made


@pytest.fixture
async def throttle(running: Services) -> AsyncIterator[Throttle]:
    """Return a throttle that forgets quickly."""
    async with Throttle(SecretStr(running.redis_url), QUICK) as made:
        yield made


async def tries(throttle: Throttle, address: str, account: str | None, times: int) -> list[int]:
    """Return the wait for each attempt, or 0 if it may be made."""
    waits = []
    for _ in range(times):
        try:
            await throttle.attempt(address, account)
        except TooManyAttempts as error:
            waits.append(error.retry_after_s)
        else:
            waits.append(0)
    return waits


async def test_the_wait_grows_with_what_fails(throttle: Throttle) -> None:
    """It is a second, then three, then a minute."""
    assert await tries(throttle, "192.0.2.1", "a", 5) == [0, 0, 0, 1, 1]
    await asyncio.sleep(1.1)
    assert (await tries(throttle, "192.0.2.1", "a", 3))[:2] == [0, 0]
    assert await tries(throttle, "192.0.2.1", "a", 1) != [0]
    await asyncio.sleep(3.1)
    waits = await tries(throttle, "192.0.2.1", "a", 3)
    assert waits[:2] == [0, 0]
    assert waits[2] > 30


async def test_a_success_clears_the_way_from_there(throttle: Throttle) -> None:
    """Counts for another account from the same address continue."""
    assert await tries(throttle, "192.0.2.2", "b", 4) == [0, 0, 0, 1]
    await throttle.succeeded("192.0.2.2", "b")
    assert await tries(throttle, "192.0.2.2", "b", 3) == [0, 0, 0]


async def test_one_address_is_held_up_at_all_accounts(throttle: Throttle) -> None:
    """This is password spraying; a success elsewhere in between changes nothing."""
    waits = []
    for number in range(25):
        waits += await tries(throttle, "192.0.2.3", f"spray-{number}", 1)
        await throttle.succeeded("192.0.2.3", f"spray-{number}")
    assert waits[:20] == [0] * 20
    assert all(waits[20:])
    assert await tries(throttle, "192.0.2.4", "spray-24", 1) == [0], "others are not"


async def test_guessing_from_everywhere_does_not_lock_out_its_owner(throttle: Throttle) -> None:
    """The account is closed to new addresses for a while, and open to recently used ones."""
    await throttle.succeeded("198.51.100.7", "target")
    waits = []
    for number in range(15):
        waits += await tries(throttle, f"203.0.113.{number}", "target", 1)
    assert waits[:10] == [0] * 10
    assert all(waits[10:])
    assert await tries(throttle, "198.51.100.7", "target", 2) == [0, 0]
    await asyncio.sleep(2.1)
    assert await tries(throttle, "203.0.113.200", "target", 1) == [0], "not for ever"


async def test_attempts_at_once_are_counted_before_they_are_made(throttle: Throttle) -> None:
    """Twenty at once count like twenty in turn."""
    waits = await asyncio.gather(*(tries(throttle, "192.0.2.5", "c", 1) for _ in range(20)))
    assert sum(wait == [0] for wait in waits) == 3


async def test_an_ipv6_network_is_one_client(throttle: Throttle) -> None:
    """Whoever has one of its 2**64 addresses has all of them."""
    waits = []
    for number in range(5):
        waits += await tries(throttle, f"2001:db8::{number}", "d", 1)
    assert [bool(wait) for wait in waits] == [False] * 3 + [True] * 2
    assert await tries(throttle, "2001:db8:0:1::1", "d", 1) == [0]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        (None, "none"),
        ("not an address", "none"),
    ],
)
def test_what_counts_as_one_client(address: str | None, expected: str) -> None:
    assert site(address) == expected


async def test_a_refusal_is_told_once_in_a_while(throttle: Throttle) -> None:
    """So refusals do not fill the log."""
    assert [await throttle.to_be_told("192.0.2.6") for _ in range(3)] == [True, False, False]


async def test_without_redis_there_are_no_attempts() -> None:
    """An attempt that cannot be counted is refused."""
    async with Throttle(SecretStr("redis://127.0.0.1:1")) as away:
        for ask in (away.attempt("192.0.2.1", "a"), away.succeeded("192.0.2.1", "a")):
            with pytest.raises(QueueUnavailable):
                await ask
