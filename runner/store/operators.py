"""Keys of the platform's operators, as stored. They belong to no tenant."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from runner.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Found:
    """A usable operator's key. `unused`: no use was recorded lately."""

    operator_id: UUID
    unused: bool
    hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredOperator:
    """An operator's key, usable or not."""

    operator_id: UUID
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


async def insert(
    tx: Transaction,
    operator_id: UUID,
    *,
    name: str,
    prefix: str,
    hash_: bytes,
    expires_at: datetime | None,
) -> None:
    """Store a new key. Needs the owner's connection, like `revoke`."""
    await tx.run(
        "operators.insert",
        operator_id=operator_id,
        name=name,
        prefix=prefix,
        hash=hash_,
        expires_at=expires_at,
    )


async def find(tx: Transaction, prefix: str) -> Found | None:
    """Return the usable key of that prefix, or None."""
    row = await tx.one("operators.find", prefix=prefix)
    return Found(**row) if row else None


async def used(tx: Transaction, operator_id: UUID) -> None:
    """Record that a key was used just now."""
    await tx.run("operators.used", operator_id=operator_id)


async def list_all(tx: Transaction) -> list[StoredOperator]:
    """Return every key, oldest first."""
    return [StoredOperator(**row) for row in await tx.all("operators.list")]


async def revoke(tx: Transaction, prefix: str) -> bool:
    """End a key at once; return False if no usable key has that prefix."""
    return bool(await tx.run("operators.revoke", prefix=prefix))
