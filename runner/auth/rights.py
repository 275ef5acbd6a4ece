"""The end of a right, and of the things that somebody made and the requests that somebody opened.

Things end in the transaction that ends the right: see `runner.store.rights`. A request, of any kind
and however long, continues only as long as the API would accept it again (`runner.auth.holding`).
"""

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from uuid import UUID

from runner.auth.grants import manages, outranks
from runner.auth.holding import Holding, UnderWay
from runner.auth.permissions import Permission, may, of_role, stopped
from runner.store import rights
from runner.store.keys import Grant
from runner.store.rights import Ended, Standing
from runner.store.transaction import Transaction
from runner.words.errors import NotAuthenticated, NotPermitted
from runner.words.principal import Principal, PrincipalKind, Role

HELD = "runner.held"
"""The key under which a request's scope keeps its `Held`."""
NO_MORE = "your key or session has just ended"


@dataclass(eq=False, slots=True)
class Held(UnderWay):
    """A running request of a principal, and the permissions that it needs.

    `principal` is kept up to date with the role that it has now.
    """

    principal: Principal
    needs: set[Permission] = field(default_factory=set)

    @property
    def id(self) -> UUID:
        """The id that PostgreSQL looks up: a login's, a key's, or that of the tenant of a token."""
        principal = self.principal
        if principal.kind is PrincipalKind.KEY:
            return principal.id
        return principal.login_id or principal.tenant_id


class Rights(Holding[Held]):
    """The running requests of principals; each ends with the right that it came with."""

    LOOKING = "looking at rights"

    @contextmanager
    def hold(self, principal: Principal) -> Iterator[Held]:
        """Track a request inside the context. Raises RightEnded and RightUnconfirmed."""
        with self._holding(Held(principal)) as held:
            yield held

    async def confirmed(self, tx: Transaction, principal: Principal) -> Principal | None:
        """Return a principal as it is now, or None if its right has ended.

        For a right that came with something else than its own credential.
        """
        asked = Held(principal, task=None)
        standing = (await self._standing(tx, [asked])).get(asked.id)
        return None if standing is None else current(principal, standing)

    async def _still_standing(self, tx: Transaction, held: Collection[Held]) -> Collection[Held]:
        found, now = await self._standing(tx, held), time.time()
        stand = set()
        for each in held:
            standing = found.get(each.id)
            if standing is not None:
                each.principal = current(each.principal, standing)
                if stands_still(each.principal, each.needs, now):
                    stand.add(each)
        return stand

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
