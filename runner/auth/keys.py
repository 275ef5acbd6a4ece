"""Keys: `rk_<prefix>_<secret>`, of operators `ro_…`. The prefix finds it, the secret proves it.

256 bits of randomness need no slow hash: SHA-256 of the whole token is stored and nothing else.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

PREFIX_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
PREFIX_LENGTH = 12
SECRET_BYTES = 32
_TOKEN = re.compile(r"(rk|ro)_([a-z2-7]{12})_[A-Za-z0-9_-]{43}", re.ASCII)


class Holder(StrEnum):
    """Whose key it is, by its first letters."""

    TENANT = "rk"
    OPERATOR = "ro"


@dataclass(frozen=True, slots=True)
class GeneratedKey:
    """A new key: the token for its holder, the rest for the store."""

    token: str = field(repr=False)
    prefix: str
    hash: bytes = field(repr=False)


def generate(holder: Holder = Holder.TENANT) -> GeneratedKey:
    """Return a new random key."""
    prefix = "".join(secrets.choice(PREFIX_ALPHABET) for _ in range(PREFIX_LENGTH))
    token = f"{holder.value}_{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return GeneratedKey(token=token, prefix=prefix, hash=digest(token))


def prefix_of(token: str, holder: Holder = Holder.TENANT) -> str | None:
    """Return the prefix of a well-formed token of this kind, else None."""
    found = _TOKEN.fullmatch(token)
    return found[2] if found and found[1] == holder.value else None


def digest(token: str) -> bytes:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


def matches(token: str, stored: bytes) -> bool:
    """Return whether the token is the one stored, in time that tells nothing of either."""
    return hmac.compare_digest(digest(token), stored)
