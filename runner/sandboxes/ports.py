"""Ports of living sandboxes: opened for callers without an API key, and found again by them."""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from runner.audit.events import Action
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.auth.rights import own_grant
from runner.sandboxes.place import KIND, NO_SANDBOX, ended
from runner.store import ports, sandboxes
from runner.store.db import Database
from runner.store.ports import FoundPort, OpenedPort
from runner.words.errors import Conflict, NotFound, NotReady
from runner.words.lives import Life
from runner.words.principal import Principal, PrincipalKind, Role

MOST_OPEN = 32
"""How many ports of one sandbox may be open at once."""
NOT_OPEN = "this port is not open"
TOKEN_PREFIX = "pt_"  # noqa: S105 - how tokens begin, not one
_TOKEN = re.compile(rf"{TOKEN_PREFIX}[A-Za-z0-9_-]{{43}}")
KNOWN_S = 600.0
"""For how long strangers may ask for a port that was seen open, however many fail beside."""
FRESH_S = 0.3
"""For how long this process remembers what it has read of a port."""
LOOK_S = 0.5
"""How often it looks whether a port that is in use is still open.

Both together bound how long a request goes on after the right of whoever opened the port has ended:
as all other requests, less than a second.
"""
MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class NewOpening:
    """A port that was just opened, with its token; a public one has none."""

    port: OpenedPort
    token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SandboxPorts:
    """Opens and closes ports of sandboxes."""

    database: Database
    gates: "PortGates"

    async def open(
        self, caller: Caller, sandbox_id: UUID, port: int, *, public: bool, lasts_s: float
    ) -> NewOpening:
        """Open a port; one that is open already gets the new terms, and another token.

        It closes with the sandbox, and with the caller's right. Raises NotFound, Gone, Conflict if
        too many are open, and NotAuthenticated or NotPermitted if the caller's right has just
        ended.
        """
        token = None if public else f"{TOKEN_PREFIX}{secrets.token_urlsafe(32)}"
        async with self.database.tenant(caller.tenant_id) as tx:
            grant = await own_grant(tx, caller.principal, Permission.SANDBOX_USE)
            found = await ports.hold_sandbox(tx, sandbox_id)
            if found is None:
                raise NotFound(NO_SANDBOX)
            if found.state is Life.ENDED:
                raise ended(found)
            if await ports.others(tx, sandbox_id, port) >= MOST_OPEN:
                raise Conflict(f"{MOST_OPEN} ports of this sandbox are open: close one first")
            opened = await ports.put(
                tx,
                sandbox_id,
                port,
                token_hash=None if token is None else _digest(token),
                opened_by=caller.actor,
                lasts_s=lasts_s,
                ends_at=last_moment(grant.expires_at, caller.principal),
            )
            facts = {"port": port, "open": True, "public": public}
            caller.record(tx, Action.SANDBOX_PORTS, KIND, str(sandbox_id), facts)
        self.gates.forget(sandbox_id, port)
        return NewOpening(opened, token)

    async def list_open(self, caller: Caller, sandbox_id: UUID) -> Sequence[OpenedPort]:
        """Return a sandbox's opened ports, in order; none once it has ended. Raises NotFound."""
        async with self.database.tenant(caller.tenant_id) as tx:
            found = await sandboxes.where(tx, sandbox_id)
            if found is None:
                raise NotFound(NO_SANDBOX)
            return [] if found.state is Life.ENDED else await ports.list_open(tx, sandbox_id)

    async def close(self, caller: Caller, sandbox_id: UUID, port: int) -> None:
        """Close a port: requests under way end, too. Raises NotFound if it is not open."""
        async with self.database.tenant(caller.tenant_id) as tx:
            if not await ports.close(tx, sandbox_id, port):
                found = await sandboxes.where(tx, sandbox_id)
                raise NotFound(NOT_OPEN if found else NO_SANDBOX)
            facts = {"port": port, "open": False}
            caller.record(tx, Action.SANDBOX_PORTS, KIND, str(sandbox_id), facts)
        self.gates.forget(sandbox_id, port)


class PortGates:
    """The open ports of all tenants' sandboxes, for callers that name no tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: OrderedDict[tuple[UUID, int], tuple[float, FoundPort | None]] = OrderedDict()

    def knows(self, sandbox_id: UUID, port: int) -> bool:
        """Return whether this process saw the port open lately."""
        until, found = self._seen.get((sandbox_id, port), (0.0, None))
        return found is not None and until > _now() - KNOWN_S

    async def find(self, sandbox_id: UUID, port: int) -> FoundPort | None:
        """Return an opened port, as it was `FRESH_S` ago at most. Raises StoreUnavailable."""
        key = sandbox_id, port
        until, found = self._seen.get(key, (0.0, None))
        if until <= _now():
            async with self._database.statements() as tx:
                found = await ports.find(tx, sandbox_id, port)
            self._seen[key] = _now() + FRESH_S, found
            self._seen.move_to_end(key)
            while len(self._seen) > MOST_REMEMBERED:
                self._seen.popitem(last=False)
        return found

    def forget(self, sandbox_id: UUID, port: int) -> None:
        """Ask PostgreSQL the next time."""
        self._seen.pop((sandbox_id, port), None)

    async def stays(self, sandbox_id: UUID, port: int, found: FoundPort) -> None:
        """Return once a port is not open any more as it was found, but closed or opened anew."""
        while True:
            await asyncio.sleep(LOOK_S)
            # While PostgreSQL does not answer, `Rights` decides how long requests go on.
            with suppress(NotReady):
                now = await self.find(sandbox_id, port)
                if now is None or now.token_hash != found.token_hash:
                    return


def last_moment(expires_at: datetime | None, principal: Principal) -> datetime | None:
    """Return when a port closes at the latest: with the caller's key, or token of a provider."""
    ends = [] if expires_at is None else [expires_at]
    if principal.ends_at is not None:
        ends.append(datetime.fromtimestamp(principal.ends_at, UTC))
    return min(ends, default=None)


def opens(found: FoundPort, token: str | None) -> bool:
    """Return whether a request with this token may reach a port."""
    if found.token_hash is None:
        return True
    if token is None or not _TOKEN.fullmatch(token):
        return False
    return hmac.compare_digest(_digest(token), found.token_hash)


def principal_of(found: FoundPort, sandbox_id: UUID, port: int) -> Principal:
    """Return whom a request acts as that was let in to a port without a key."""
    return Principal(
        tenant_id=found.tenant_id,
        id=sandbox_id,
        kind=PrincipalKind.PORT,
        name=f"{sandbox_id}/{port}",
        role=Role.DEVELOPER,
        tier=found.tier,
        permissions=frozenset({Permission.SANDBOX_USE}),
        ends_at=found.expires_at.timestamp(),
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _now() -> float:
    return asyncio.get_running_loop().time()
