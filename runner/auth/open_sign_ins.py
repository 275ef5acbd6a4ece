"""Sign-ins at the identity provider that were begun and not finished: a secret, and a row in Redis.

The secret is in a cookie of one browser, and in no other place. State, nonce and verifier are made
of it, so they are bound to this browser (RFC 9700 2.1.1 and 4.7), and nothing that Redis holds
helps whoever can read it. Redis only says which sign-ins are open. What it holds may be forged:
nobody gets in by it, and the place to go on at is checked again when it is read.
"""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import redis.asyncio
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from runner.base.short_redis import short_pool
from runner.words.errors import QueueUnavailable

OPEN_S = 600
"""How long somebody may take at the provider, with a second factor and a password that was lost."""
ANSWER_S = 0.5
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class OpenSignIn(BaseModel):
    """What is remembered of a sign-in until it is finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: str | None = None
    tenant: str | None = None
    replaces: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """The session id's hash that the browser had, in hexadecimal: it ends with the new session."""


@dataclass(frozen=True, slots=True)
class Secret:
    """What only one browser holds of one sign-in; everything that answers must fit is made of it.

    Each value is an HMAC under it, so one that is seen, as state and challenge are in addresses,
    tells nothing about the others.
    """

    text: str = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Return a new one, of 256 random bits."""
        return cls(secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """Return the one in a cookie, or None if it does not have the form of one."""
        return cls(text) if text and _SECRET.fullmatch(text) else None

    @property
    def key(self) -> str:
        """The name under which Redis knows the sign-in."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def state(self) -> str:
        """What the provider sends back, so that a page elsewhere cannot (RFC 9700 4.7)."""
        return self._made("state")

    @property
    def nonce(self) -> str:
        """What the ID token must hold (OpenID Connect Core 3.1.2.1 and 15.5.2)."""
        return self._made("nonce")

    @property
    def verifier(self) -> str:
        """What proves at the token endpoint who has asked: 43 characters (RFC 7636 4.1)."""
        return self._made("verifier")

    @property
    def challenge(self) -> str:
        """The verifier's hash, which the browser carries to the provider (RFC 7636 4.2)."""
        return _base64url(hashlib.sha256(self.verifier.encode()).digest())

    def _made(self, what: str) -> str:
        return _base64url(hmac.digest(self.text.encode(), what.encode(), hashlib.sha256))


class OpenSignIns:
    """The sign-ins that were begun and not finished, in Redis.

    Whoever composes the process opens and closes it. Both methods raise QueueUnavailable.
    """

    def __init__(self, redis_url: SecretStr, *, answer_s: float = ANSWER_S) -> None:
        self._redis = redis.asyncio.Redis.from_pool(
            short_pool(redis_url, answer_s=answer_s, connections=8)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._redis.aclose()

    async def put(self, secret: Secret, begun: OpenSignIn) -> None:
        """Remember a sign-in for `OPEN_S`."""
        try:
            await self._redis.set(_key(secret), begun.model_dump_json(), ex=OPEN_S)
        except redis.RedisError as error:
            raise QueueUnavailable(f"Redis: {type(error).__name__}; try again") from error

    async def take(self, secret: Secret) -> OpenSignIn | None:
        """Return a sign-in that is open, which it is no longer: of two who ask, one gets it."""
        try:
            found = await self._redis.getdel(_key(secret))
        except redis.RedisError as error:
            raise QueueUnavailable(f"Redis: {type(error).__name__}; try again") from error
        try:
            return OpenSignIn.model_validate_json(found) if found else None
        except ValidationError:
            return None


def _key(secret: Secret) -> str:
    return f"runner:sign-in:{secret.key}"


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
