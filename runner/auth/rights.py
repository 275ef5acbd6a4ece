"""The end of a right, and of the things that somebody made and the requests that somebody opened.

Things end in the transaction that ends the right: see `runner.store.rights`. A request, of any kind
and however long, continues only as long as the API would accept it again. `Rights` checks all
running requests together, a few times a second, in one statement. Nobody has to announce the end of
a right, so an expiry ends a request just as a revocation does.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import TracebackType
from typing import Self
from uuid import UUID

import structlog

from runner.auth.grants import manages, outranks
from runner.auth.permissions import Permission, may, of_role, stopped
from runner.base.duties import Duties
from runner.store import rights
from runner.store.db import Database
from runner.store.keys import Grant
from runner.store.rights import Ended, Standing
from runner.store.transaction import Transaction
from runner.words.errors import NotAuthenticated, NotPermitted, RightEnded, RightUnconfirmed
from runner.words.principal import Principal, PrincipalKind, Role

LOOK_S = 0.25
"""Pause between two checks. Two in a row must find a right ended, so it takes well below a
second."""
UNCONFIRMED_S = 10.0
"""How long a request continues while PostgreSQL does not say whether its right still holds."""
LOOKING = "looking at rights"
HELD = "runner.held"
"""The key under which a request's scope keeps its `Held`."""
OVER = (
    "your key, session or token ended, or lost this permission, while the request was under way: "
    "some of it may have been done"
)
NOT_CONFIRMED = (
    "PostgreSQL does not say whether your key, session or token still stands, so the request was "
    "ended: some of it may have been done; look before you try again"
)
NO_MORE = "your key or session has just ended"


@dataclass(eq=False, slots=True)
class Held:
    """A running request: its principal, the permissions that it needs, and the task that serves it.

    `principal` is kept up to date with the role that it has now. `confirmed` is when the right was
    last known to hold, on the monotonic clock; at first, when the request was accepted.
    """

    principal: Principal
    task: asyncio.Task[object] | None
    needs: set[Permission] = field(default_factory=set)
    confirmed: float = field(default_factory=time.monotonic)
    doubted: bool = False
    over: RightEnded | RightUnconfirmed | None = None

    @property
    def id(self) -> UUID:
        """The id that PostgreSQL looks up: a login's, a key's, or that of the tenant of a token."""
        principal = self.principal
        if principal.kind is PrincipalKind.KEY:
            return principal.id
        return principal.login_id or principal.tenant_id


class Rights:
    """The running requests of this process; each ends with the right that it came with."""

    def __init__(
        self, database: Database, *, idle: timedelta, duties: Duties | None = None
    ) -> None:
        self._database = database
        self._idle = idle
        self._held: set[Held] = set()
        self._duties = duties or Duties()
        self._under_way = AsyncExitStack()
        self._log = structlog.get_logger("runner.auth")

    @property
    def confirming(self) -> bool:
        """Whether PostgreSQL says which rights hold."""
        return LOOKING not in self._duties.failing

    async def __aenter__(self) -> Self:
        looking = self._duties.doing(LOOKING, self._look_or_doubt, every_s=LOOK_S)
        await self._under_way.enter_async_context(looking)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._under_way.aclose()

    @contextmanager
    def hold(self, principal: Principal) -> Iterator[Held]:
        """Track a request inside the context.

        Cancels the task and raises RightEnded within a second after its right ends, or
        RightUnconfirmed if nobody can tell for `UNCONFIRMED_S` whether it holds.
        """
        held = Held(principal, asyncio.current_task())
        self._held.add(held)
        try:
            yield held
        except asyncio.CancelledError:
            # Somebody else has cancelled the task meanwhile: obey that.
            if held.over is None or held.task is None or held.task.uncancel():
                raise
            raise held.over from None
        finally:
            self._held.discard(held)

    async def confirmed(self, tx: Transaction, principal: Principal) -> Principal | None:
        """Return a principal as it is now, or None if its right has ended.

        For a right that came with something else than its own credential.
        """
        asked = Held(principal, None)
        standing = (await self._standing(tx, [asked])).get(asked.id)
        return None if standing is None else current(principal, standing)

    async def _look_or_doubt(self) -> None:
        try:
            await self.look()
        except Exception:
            self._doubt()
            raise

    async def look(self) -> None:
        """End the requests whose right this check and the one before both found ended.

        A request that ended its own right, as a logout does, has the time between them to answer.
        """
        held, began = list(self._held), time.monotonic()
        if held:
            async with self._database.statements() as tx:
                found = await self._standing(tx, held)
            now = time.time()
            for each in held:
                standing = found.get(each.id)
                if standing is not None:
                    each.principal = current(each.principal, standing)
                stands = standing is not None and stands_still(each.principal, each.needs, now)
                if not stands and each.doubted:
                    self._end(each, RightEnded(OVER))
                each.doubted = not stands
                each.confirmed = began

    async def _standing(self, tx: Transaction, held: Iterable[Held]) -> dict[UUID, Standing]:
        keys, logins, tenants = set(), set(), set()
        for each in held:
            if each.principal.kind is PrincipalKind.KEY:
                keys.add(each.id)
            elif each.principal.login_id is not None:
                logins.add(each.id)
            else:
                tenants.add(each.id)
        return await rights.standing(tx, keys=keys, logins=logins, tenants=tenants, idle=self._idle)

    def _doubt(self) -> None:
        """End the requests whose rights have been unconfirmed for too long.

        Requests that were accepted since then stay: PostgreSQL was asked when they came.
        """
        before = time.monotonic() - UNCONFIRMED_S
        unconfirmed = [each for each in self._held if each.confirmed <= before]
        if unconfirmed:
            self._log.error("rights_unconfirmed", requests=len(unconfirmed))
        for each in unconfirmed:
            self._end(each, RightUnconfirmed(NOT_CONFIRMED))

    def _end(self, held: Held, why: RightEnded | RightUnconfirmed) -> None:
        if held in self._held and held.over is None and held.task is not None:
            held.over = why
            held.task.cancel()


def current(principal: Principal, standing: Standing) -> Principal:
    """Return the principal as it is now."""
    role = standing.role or principal.role
    if (role, standing.suspended) == (principal.role, principal.suspended):
        return principal
    return replace(principal, role=role, suspended=standing.suspended)


def stands_still(principal: Principal, needs: Iterable[Permission], now: float) -> bool:
    """Return whether the API would accept the principal again, with these permissions."""
    if principal.ends_at is not None and principal.ends_at <= now:
        return False
    return all(may(principal, each) and not stopped(principal, each) for each in needs)


async def own_grant(tx: Transaction, principal: Principal, permission: Permission) -> Grant:
    """Return the caller's own rights, and lock them until the transaction ends.

    Call this before making something that outlasts the request: if the right has ended since the
    request was accepted, nothing more is made. Raises NotAuthenticated and NotPermitted.
    """
    if principal.kind is PrincipalKind.KEY:
        key = await rights.hold_key(tx, principal.id)
        if key is None:
            raise NotAuthenticated(NO_MORE)
        return key.grant
    role: Role | None = principal.role
    if principal.login_id is not None:
        role = await rights.hold_member(tx, principal.id)
    if role is None:
        raise NotAuthenticated(NO_MORE)
    if not may(replace(principal, role=role), permission):
        raise NotPermitted(
            f"your role is now {role.value}, which lacks the permission {permission.value}"
        )
    return Grant(role, principal.permissions)


async def demote(tx: Transaction, maker: str, role: Role) -> Ended:
    """End everything that an actor made and could not have made with their present role."""
    able = of_role(role)
    makes_keys = Permission.API_KEY_WRITE in able
    invites = Permission.MEMBER_WRITE in able
    return await rights.end_made(
        tx,
        maker,
        keys=[each for each in Role if not (makes_keys and outranks(role, each))],
        invitations=[each for each in Role if not (invites and manages(role, each))],
        ports=Permission.SANDBOX_USE not in able,
    )
