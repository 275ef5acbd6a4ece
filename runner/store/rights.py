"""Rights that still hold, and the end of everything that was made with one.

Only `end` ends what a principal made. If a new kind of thing can be made, add it to the statement
`end` in `queries/rights.sql`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from runner.store import keys
from runner.store.keys import StoredKey
from runner.store.transaction import Transaction
from runner.words.principal import Role

EVERY_ROLE = frozenset(Role)


@dataclass(frozen=True, slots=True)
class Standing:
    """A right that holds: its current role (None if nobody here knows it), and its tenant."""

    role: Role | None
    suspended: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The number of things that were ended."""

    keys: int = 0
    invitations: int = 0
    ports: int = 0

    def __add__(self, other: "Ended") -> "Ended":
        return Ended(
            self.keys + other.keys,
            self.invitations + other.invitations,
            self.ports + other.ports,
        )


async def standing(
    tx: Transaction,
    *,
    keys: Collection[UUID],
    logins: Collection[UUID],
    tenants: Collection[UUID],
    idle: timedelta,
) -> dict[UUID, Standing]:
    """Return the rights that still hold, by id; for all tenants, in one statement."""
    rows = await tx.all(
        "rights.standing",
        keys=list(keys),
        logins=list(logins),
        tenants=list(tenants),
        idle=idle,
    )
    return {
        row["id"]: Standing(Role(row["role"]) if row["role"] else None, row["suspended"])
        for row in rows
    }


async def hold_key(tx: Transaction, key_id: UUID) -> StoredKey | None:
    """Return a usable key of this tenant, which then cannot end before this transaction does."""
    row = await tx.one("rights.hold_key", key_id=key_id)
    return keys.of_row(row) if row else None


async def hold_member(tx: Transaction, user_id: UUID) -> Role | None:
    """Return a member's role, which then cannot change before this transaction ends."""
    row = await tx.one("rights.hold_member", user_id=user_id)
    return Role(row["role"]) if row else None


async def end_made(
    tx: Transaction,
    maker: str,
    *,
    keys: Collection[Role] = EVERY_ROLE,
    invitations: Collection[Role] = EVERY_ROLE,
    ports: bool = True,
) -> Ended:
    """End the actor's keys and invitations that have these roles, and what the keys made.

    With `ports`, also close the ports of sandboxes that the actor opened.
    """
    return await _end(tx, maker=maker, keys=keys, invitations=invitations, ports=ports)


async def end_key_alone(tx: Transaction, key_id: UUID) -> Ended:
    """Revoke only this key; `end_key` revokes what it made."""
    return Ended(keys=await tx.run("rights.end_alone", key_id=key_id))


async def end_key(tx: Transaction, key_id: UUID, *, spared: UUID | None = None) -> Ended:
    """Revoke a key, the keys that it replaced, and everything that any of them made.

    `spared` is the caller's own key: it stays, and so does everything that it made itself.
    """
    return await _end(tx, key_id=key_id, spared=None if spared == key_id else spared)


async def _end(
    tx: Transaction,
    *,
    key_id: UUID | None = None,
    maker: str | None = None,
    keys: Collection[Role] = (),
    invitations: Collection[Role] = (),
    ports: bool = False,
    spared: UUID | None = None,
) -> Ended:
    total = Ended()
    while True:
        row = await tx.one(
            "rights.end",
            key_id=key_id,
            maker=maker,
            keys=list(keys),
            invitations=list(invitations),
            ports=ports,
            spared=spared,
        )
        ended = Ended(row["keys"], row["invitations"], row["ports"]) if row else Ended()
        if ended == Ended():
            return total
        # A key locks its own row while it makes something. What it made while this statement waited
        # for that row is visible only in the next round.
        total += ended
