"""What ends with a right: what somebody made, and whatever they have opened.

What was made ends in the transaction that ends the right: `runner.store.rights`. What is open, a
request of any kind however long it lasts, goes on only as long as the same request would be let in
again: `Rights` looks at all that are under way together, a few times a second, in one statement.
Looking needs nobody to announce an end, so an expiry ends a request as a revocation does.
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
"""Between two looks. What two looks in a row find ended is ended: well below a second."""
UNCONFIRMED_S = 10.0
"""How long a request goes on while PostgreSQL does not say whether its right stands."""
LOOKING = "looking at rights"
HELD = "runner.held"
"""Where a request's scope has what it is held by."""
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
    """One request under way: whose, by which permissions, and the task that serves it.

    `principal` is kept as it stands: with the role that it has now. `confirmed` is when its right
    was last known to stand, on the monotonic clock: at first when the request was let in.
    """

    principal: Principal
    task: asyncio.Task[object] | None
    needs: set[Permission] = field(default_factory=set)
    confirmed: float = field(default_factory=time.monotonic)
    doubted: bool = False
    over: RightEnded | RightUnconfirmed | None = None

    @property
    def id(self) -> UUID:
        """What is asked for: a session, a key, or the tenant in which a token names a user."""
        principal = self.principal
        if principal.kind is PrincipalKind.KEY:
            return principal.id
        return principal.session_id or principal.tenant_id


class Rights:
    """The requests under way in this process, each ended with the right that it came with."""

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
        """Whether PostgreSQL says which rights stand."""
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
        """Let a request be under way while the context lasts.

        Raises RightEnded, by cancelling the task, within a second of the end of its right, and
        RightUnconfirmed when nobody can tell for `UNCONFIRMED_S` whether it stands.
        """
        held = Held(principal, asyncio.current_task())
        self._held.add(held)
        try:
            yield held
        except asyncio.CancelledError:
            # Whoever else has cancelled it meanwhile is obeyed.
            if held.over is None or held.task is None or held.task.uncancel():
                raise
            raise held.over from None
        finally:
            self._held.discard(held)

    async def _look_or_doubt(self) -> None:
        try:
            await self.look()
        except Exception:
            self._doubt()
            raise

    async def look(self) -> None:
        """End the requests whose right was found ended by the look before, too.

        One that has ended its own right, as by logging out, has until then to answer.
        """
        held, began = list(self._held), time.monotonic()
        if held:
            found = await self._standing(held)
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

    async def _standing(self, held: Iterable[Held]) -> dict[UUID, Standing]:
        keys, sessions, tenants = set(), set(), set()
        for each in held:
            if each.principal.kind is PrincipalKind.KEY:
                keys.add(each.id)
            elif each.principal.session_id is not None:
                sessions.add(each.id)
            else:
                tenants.add(each.id)
        async with self._database.statements() as tx:
            return await rights.standing(
                tx, keys=keys, sessions=sessions, tenants=tenants, idle=self._idle
            )

    def _doubt(self) -> None:
        """End the requests that have gone on for too long since their rights were known to stand.

        Not those let in since: to let them in, PostgreSQL was asked.
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
    """Return the principal as it stands."""
    role = standing.role or principal.role
    if (role, standing.suspended) == (principal.role, principal.suspended):
        return principal
    return replace(principal, role=role, suspended=standing.suspended)


def stands_still(principal: Principal, needs: Iterable[Permission], now: float) -> bool:
    """Return whether the principal would be let in again, by these permissions."""
    if principal.ends_at is not None and principal.ends_at <= now:
        return False
    return all(may(principal, each) and not stopped(principal, each) for each in needs)


async def own_grant(tx: Transaction, principal: Principal, permission: Permission) -> Grant:
    """Return what the one that asks may do itself, and keep it so until the transaction ends.

    Called before something is made that outlasts the request: a right that was ended since the
    request was let in makes nothing more. Raises NotAuthenticated and NotPermitted.
    """
    if principal.kind is PrincipalKind.KEY:
        key = await rights.hold_key(tx, principal.id)
        if key is None:
            raise NotAuthenticated(NO_MORE)
        return key.grant
    role: Role | None = principal.role
    if principal.session_id is not None:
        role = await rights.hold_member(tx, principal.id)
    if role is None:
        raise NotAuthenticated(NO_MORE)
    if not may(replace(principal, role=role), permission):
        raise NotPermitted(
            f"your role is now {role.value}, which lacks the permission {permission.value}"
        )
    return Grant(role, principal.permissions)


async def demote(tx: Transaction, maker: str, role: Role) -> Ended:
    """End what an actor made that the role which they have now could not have made."""
    able = of_role(role)
    makes_keys = Permission.API_KEY_WRITE in able
    invites = Permission.MEMBER_WRITE in able
    return await rights.end_made(
        tx,
        maker,
        keys=[each for each in Role if not (makes_keys and outranks(role, each))],
        invitations=[each for each in Role if not (invites and manages(role, each))],
    )
