"""Sessions of users: a random id in a cookie, stored as its hash, and a token against CSRF.

The id has 256 bits and is new at each login. The CSRF token is an HMAC under the id. So it is bound
to the session, need not be stored, and nobody can make it who cannot read the cookie (OWASP's
Cross-Site Request Forgery Prevention Cheat Sheet, "HMAC based token pattern").
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from runner.store import users
from runner.store.db import Database
from runner.words.principal import Principal, PrincipalKind

ID_BYTES = 32
_ID = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The lifetimes of sessions: without use, and at most."""

    idle: timedelta
    absolute: timedelta


@dataclass(frozen=True, slots=True)
class SessionId:
    """A session's id: the text for the cookie, the hash for the store."""

    text: str = field(repr=False)

    @property
    def hash(self) -> bytes:
        """The hash, which is stored."""
        return hashlib.sha256(self.text.encode()).digest()

    @property
    def csrf(self) -> str:
        """The token that a page sends beside the cookie with every change."""
        return hmac.new(self.text.encode(), b"csrf", hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Session:
    """The session that a request came with."""

    id: UUID
    user_id: UUID
    csrf: str = field(repr=False)


def generate() -> SessionId:
    """Return a new random id."""
    return SessionId(secrets.token_urlsafe(ID_BYTES))


def parse(text: str | None) -> SessionId | None:
    """Return the id in a cookie, or None if it does not have the form of one."""
    return SessionId(text) if text and _ID.fullmatch(text) else None


def csrf_matches(csrf: str, offered: str | None) -> bool:
    """Return whether this is a session's token; the time that it takes reveals nothing of it."""
    return hmac.compare_digest(csrf.encode(), (offered or "").encode())


async def find(
    database: Database, presented: SessionId, idle: timedelta, *, attended: bool = True
) -> tuple[Principal, Session] | None:
    """Return who acts in the session of that id, or None if it is over or there is none.

    The role is what the user has now, not what they had when they logged in. Unless the request is
    `attended`, it is no use of the session, which ends as if nobody had asked.
    """
    async with database.no_tenant() as tx:
        found = await users.find_session(tx, presented.hash, idle)
    if found is None:
        return None
    if found.unused and attended:
        async with database.tenant(found.tenant_id) as tx:
            await users.used(tx, found.session_id)
    principal = Principal(
        tenant_id=found.tenant_id,
        id=found.user_id,
        kind=PrincipalKind.USER,
        name=str(found.user_id),
        role=found.role,
        tier=found.tier,
        suspended=found.suspended,
        login_id=found.session_id,
    )
    return principal, Session(found.session_id, found.user_id, presented.csrf)
