"""Passwords: argon2id, checked in the same time whether or not there is an account.

The parameters are those of OWASP's Password Storage Cheat Sheet. A hash that was made with others
is replaced when its owner logs in. zxcvbn (Wheeler, USENIX Security 2016) estimates how soon
guessing programs would try a password, and a weak one is refused; it knows lists of leaked
passwords, names, dates and keyboards.
"""

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import VerifyMismatchError
from zxcvbn import zxcvbn

P = ParamSpec("P")
R = TypeVar("R")

MIN_LENGTH = 12
MAX_LENGTH = 128
GUESSES = 10**8
"""An online attack that nobody notices could try as many guesses as this."""
LOOKED_AT = 72
"""Most characters of a password: zxcvbn's time grows faster than the length."""


class Passwords:
    """Hashes and verifies in threads, at most `at_once`: each takes 19 MiB while it runs."""

    def __init__(self, *, at_once: int = 2, time_cost: int = 2, memory_kib: int = 19_456) -> None:
        self._hasher = PasswordHasher(
            time_cost=time_cost, memory_cost=memory_kib, parallelism=1, type=Type.ID
        )
        self._at_once = asyncio.Semaphore(at_once)
        self._nobodys = self._hasher.hash(secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        """Return what to store of a password."""
        return await self._in_thread(self._hasher.hash, _normal(password))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Return whether it is the stored password; with None, False after the same work."""
        known = self._nobodys if stored is None else stored
        matches = await self._in_thread(self._matches, known, _normal(password))
        return matches and stored is not None

    def outdated(self, stored: str) -> bool:
        """Return whether it was hashed with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    async def weakness(self, password: str, *, email: str) -> str | None:
        """Return why the password is not accepted, or None."""
        normal = _normal(password)
        if not MIN_LENGTH <= len(normal) <= MAX_LENGTH:
            return f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters"
        guesses = await self._in_thread(_guesses, normal, [email, *email.split("@")])
        if guesses < GUESSES:
            return "this password is among the first that are guessed; four unrelated words do"
        return None

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except VerifyMismatchError:
            return False

    async def _in_thread(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        async with self._at_once:
            return await asyncio.to_thread(work, *args, **kwargs)


def _normal(password: str) -> str:
    """Return one text for all ways in which keyboards may write it (NIST SP 800-63B 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def _guesses(password: str, inputs: list[str]) -> int:
    return int(zxcvbn(password[:LOOKED_AT], user_inputs=inputs)["guesses"])
