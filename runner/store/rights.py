"""What somebody's right carries: whether it stands, and the end of all that was made with it.

`end` is the one place that ends what a principal made. What is new and can be made joins its
statement, in `queries/rights.sql`.
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
    """A right that stands: the role it has now (None: nobody here knows), and its tenant."""

    role: Role | None
    suspended: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """How much was ended."""

    keys: int = 0
    invitations: int = 0

    def __add__(self, other: "Ended") -> "Ended":
        return Ended(self.keys + other.keys, self.invitations + other.invitations)


async def standing(
    tx: Transaction,
    *,
    keys: Collection[UUID],
    sessions: Collection[UUID],
    tenants: Collection[UUID],
    idle: timedelta,
) -> dict[UUID, Standing]:
    """Return those that stand, by id: of any tenant, in one statement."""
    rows = await tx.all(
        "rights.standing",
        keys=list(keys),
        sessions=list(sessions),
        tenants=list(tenants),
        idle=idle,
    )
    return {
        row["id"]: Standing(Role(row["role"]) if row["role"] else None, row["suspended"])
        for row in rows
    }


async def hold_key(tx: Transaction, key_id: UUID) -> StoredKey | None:
    """Return a usable key of this tenant; it cannot end before this transaction does."""
    row = await tx.one("rights.hold_key", key_id=key_id)
    return keys.of_row(row) if row else None


async def hold_member(tx: Transaction, user_id: UUID) -> Role | None:
    """Return a member's role; it cannot change before this transaction ends."""
    row = await tx.one("rights.hold_member", user_id=user_id)
    return Role(row["role"]) if row else None


async def end_made(
    tx: Transaction,
    maker: str,
    *,
    keys: Collection[Role] = EVERY_ROLE,
    invitations: Collection[Role] = EVERY_ROLE,
) -> Ended:
    """End the keys and invitations of these roles that an actor made, and what those keys made."""
    return await _end(tx, maker=maker, keys=keys, invitations=invitations)


async def end_key_alone(tx: Transaction, key_id: UUID) -> Ended:
    """Revoke a key and nothing else; what it made is left to `end_key`."""
    return Ended(keys=await tx.run("rights.end_alone", key_id=key_id))


async def end_key(tx: Transaction, key_id: UUID, *, spared: UUID | None = None) -> Ended:
    """Revoke a key, those whose place it took, and all that any of them made.

    `spared` is a key that stays with what it made itself: the one that asks.
    """
    return await _end(tx, key_id=key_id, spared=None if spared == key_id else spared)


async def _end(
    tx: Transaction,
    *,
    key_id: UUID | None = None,
    maker: str | None = None,
    keys: Collection[Role] = (),
    invitations: Collection[Role] = (),
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
            spared=spared,
        )
        ended = Ended(row["keys"], row["invitations"]) if row else Ended()
        if ended == Ended():
            return total
        # A key holds its own row while it makes something: what it made while this waited for that
        # row is seen by the next round alone.
        total += ended
