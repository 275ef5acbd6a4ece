"""A tenant's sealed secrets, and the wrapped data key that seals them.

The API's login may list names and write; only the worker's login may read the sealed values.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from runner.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A secret, without its value."""

    name: str
    created_at: datetime
    updated_at: datetime

    @property
    def is_new(self) -> bool:
        """Whether it was written only once."""
        return self.created_at == self.updated_at


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A tenant's data key, wrapped by the key-encryption key of that id."""

    tenant_id: UUID
    kek_id: str
    wrapped: bytes


async def put(tx: Transaction, name: str, sealed: bytes) -> StoredSecret:
    """Store a sealed value; it replaces one of that name."""
    row = await tx.one("secrets.put", name=name, sealed=sealed)
    if row is None:
        raise RuntimeError("PostgreSQL stored a secret and returned none")
    return StoredSecret(**row)


async def sealed(tx: Transaction, name: str) -> bytes | None:
    """Return the sealed value of that name."""
    row = await tx.one("secrets.sealed", name=name)
    return row["sealed"] if row else None


async def list_all(tx: Transaction) -> list[StoredSecret]:
    """Return every secret of the tenant, by name."""
    return [StoredSecret(**row) for row in await tx.all("secrets.list")]


async def delete(tx: Transaction, name: str) -> bool:
    """Delete the secret of that name; return whether there was one."""
    return await tx.run("secrets.delete", name=name) > 0


async def get_key(tx: Transaction) -> StoredKey | None:
    """Return the tenant's data key."""
    row = await tx.one("secrets.get_key")
    return StoredKey(**row) if row else None


async def add_key(tx: Transaction, kek_id: str, wrapped: bytes) -> None:
    """Store the tenant's data key, unless another transaction came first."""
    await tx.run("secrets.add_key", kek_id=kek_id, wrapped=wrapped)


async def keys_not_under(tx: Transaction, kek_id: str) -> list[StoredKey]:
    """Return all tenants' data keys that another key-encryption key wraps. Owner only."""
    return [StoredKey(**row) for row in await tx.all("secrets.keys_not_under", kek_id=kek_id)]


async def rewrap(tx: Transaction, before: StoredKey, kek_id: str, wrapped: bytes) -> bool:
    """Store a data key wrapped by another key-encryption key, unless it changed meanwhile."""
    changed = await tx.run("secrets.rewrap", before=before.kek_id, kek_id=kek_id, wrapped=wrapped)
    return changed > 0
