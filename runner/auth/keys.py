"""API keys `rk_<prefix>_<secret>` and operators' `ro_…`: the prefix finds, the secret proves.

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
E2B_PREFIX = "e2b_"
_E2B = re.compile(rf"{E2B_PREFIX}((?:[0-9a-f]{{2}}){{1,64}})", re.ASCII)


class Holder(StrEnum):
    """Whose key it is; its first letters say so."""

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
    """Return the prefix of a well-formed token of this kind, or None."""
    found = _TOKEN.fullmatch(token)
    return found[2] if found and found[1] == holder.value else None


def digest(token: str) -> bytes:
    """Return what to store of a token."""
    return hashlib.sha256(token.encode()).digest()


def matches(token: str, stored: bytes) -> bool:
    """Return whether this is the stored token; the time that it takes reveals nothing of either."""
    return hmac.compare_digest(digest(token), stored)


def in_e2b_form(token: str) -> str:
    """Return a key in the form that E2B's clients demand: `e2b_` and hexadecimal digits.

    It is the same key, written differently: whoever has one form has the other.
    """
    return E2B_PREFIX + token.encode().hex()


def from_e2b_form(text: str) -> str | None:
    """Return the key that was written in E2B's form, or None if it is not one."""
    found = _E2B.fullmatch(text)
    if found is None:
        return None
    token = bytes.fromhex(found[1]).decode("ascii", "replace")
    return token if prefix_of(token) is not None else None
