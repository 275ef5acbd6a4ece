"""Passwords are hashed as OWASP says, in one form, and refused if they are guessed early."""

import time

import pytest

from runner.auth.passwords import Passwords

GOOD = "umbrella granite walrus tempo"


@pytest.fixture(scope="module")
def passwords() -> Passwords:
    """Return a hasher with today's parameters."""
    return Passwords()


async def test_a_hash_verifies_its_password_alone(passwords: Passwords) -> None:
    """Argon2id with 19 MiB, two passes, one lane, and a salt, so that no two hashes are equal."""
    one, two = await passwords.hash(GOOD), await passwords.hash(GOOD)
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert one != two
    assert await passwords.verify(GOOD, one)
    assert not await passwords.verify(f"{GOOD} ", one)


async def test_how_a_keyboard_writes_a_letter_makes_no_difference(passwords: Passwords) -> None:
    """By NFKC, one letter and two that look like it are the same password."""
    stored = await passwords.hash("caf\N{LATIN SMALL LETTER E WITH ACUTE} umbrella granite")
    assert await passwords.verify("cafe\N{COMBINING ACUTE ACCENT} umbrella granite", stored)


@pytest.mark.alone
async def test_nobodys_password_takes_as_long_and_never_fits(passwords: Passwords) -> None:
    """The test compares the best of several, in turn: the work is done, and nothing is skipped."""
    stored = await passwords.hash(GOOD)
    took: dict[str | None, list[float]] = {stored: [], None: []}
    for _ in range(7):
        for known, times in took.items():
            began = time.perf_counter()
            assert not await passwords.verify("something else altogether", known)
            times.append(time.perf_counter() - began)
    best = [min(times) for times in took.values()]
    assert min(best) > 0.5 * max(best)


async def test_other_parameters_are_outdated(passwords: Passwords) -> None:
    """Both weaker and stronger ones are."""
    assert not passwords.outdated(await passwords.hash(GOOD))
    assert passwords.outdated(await Passwords(time_cost=1, memory_kib=1024).hash(GOOD))


@pytest.mark.parametrize(
    "weak",
    [
        "elevenchars",
        "x" * 129,
        "password1234",
        "123456789012",
        "qwertyuiop12",
        "aaaaaaaaaaaaaaaaaaaa",
        "ada.lovelace@example.com",
        "ada.lovelace1",
        "letmeinletmein",
        "December2024",
    ],
)
async def test_what_is_guessed_first_is_refused(passwords: Passwords, weak: str) -> None:
    """Too short, too long, common, a row of keys, the person's own address; a good one passes."""
    email = "ada.lovelace@example.com"
    told = await passwords.weakness(weak, email=email)
    assert told
    assert weak not in told
    assert await passwords.weakness(GOOD, email=email) is None
