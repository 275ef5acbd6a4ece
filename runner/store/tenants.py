"""Tenants and their API keys, as stored: the schema's owner writes them, the API reads them."""

from dataclasses import dataclass
from uuid import UUID

from psycopg.types.json import Jsonb

from runner.models import Isolation, Limits, Role
from runner.store.db import Transaction
from runner.store.executions import LIMITS


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer of the deployment. `max_limits` is the most one execution may ask for."""

    id: UUID
    name: str
    max_concurrency: int
    max_limits: Limits
    required_isolation: Isolation | None = None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key as stored: the hash of its secret, never the secret."""

    tenant_id: UUID
    key_id: UUID
    role: Role
    hash: bytes


async def find(tx: Transaction, name: str) -> UUID | None:
    """Return the id of the tenant of that name, or None. Needs the owner's connection."""
    row = await tx.one("tenants.find", name=name)
    return row["tenant_id"] if row else None


async def insert(tx: Transaction, tenant: Tenant) -> None:
    """Store a new tenant; the transaction must be that tenant's own."""
    await tx.run(
        "tenants.insert",
        tenant_id=tenant.id,
        name=tenant.name,
        max_concurrency=tenant.max_concurrency,
        max_limits=Jsonb(LIMITS.dump_python(tenant.max_limits)),
        required_isolation=tenant.required_isolation,
    )


async def get(tx: Transaction) -> Tenant | None:
    """Return the tenant of this transaction."""
    row = await tx.one("tenants.get")
    if row is None:
        return None
    return Tenant(
        id=row["tenant_id"],
        name=row["name"],
        max_concurrency=row["max_concurrency"],
        max_limits=LIMITS.validate_python(row["max_limits"]),
        required_isolation=row["required_isolation"] and Isolation(row["required_isolation"]),
    )


async def insert_key(
    tx: Transaction, *, key_id: UUID, prefix: str, hash_: bytes, role: Role, name: str
) -> None:
    """Store a new key of this transaction's tenant."""
    await tx.run(
        "tenants.insert_key", key_id=key_id, prefix=prefix, hash=hash_, role=role, name=name
    )


async def find_key(tx: Transaction, prefix: str) -> StoredKey | None:
    """Return the usable key of that prefix, of whatever tenant; None when there is none."""
    row = await tx.one("tenants.find_key", prefix=prefix)
    if row is None:
        return None
    return StoredKey(
        tenant_id=row["tenant_id"], key_id=row["key_id"], role=Role(row["role"]), hash=row["hash"]
    )
