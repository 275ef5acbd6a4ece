"""API keys, as stored: hashes and rights, never the keys themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias
from uuid import UUID

from psycopg.rows import DictRow

from runner.store.transaction import Transaction
from runner.words.principal import Role, Tier

Network: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Grant:
    """The rights of a key's holder. None means no limit beyond the role's."""

    role: Role
    permissions: frozenset[str] | None = None
    networks: tuple[Network, ...] | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A usable key with its tenant's state. `unused`: no use was recorded lately."""

    tenant_id: UUID
    key_id: UUID
    grant: Grant
    tier: Tier
    suspended: bool
    unused: bool
    hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key of this tenant, usable or not."""

    id: UUID
    prefix: str
    name: str
    grant: Grant
    created_by: str
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaced_by: UUID | None


async def find(tx: Transaction, prefix: str) -> Found | None:
    """Return the usable key of any tenant with that prefix, or None."""
    row = await tx.one("keys.find", prefix=prefix)
    if row is None:
        return None
    return Found(
        tenant_id=row["tenant_id"],
        key_id=row["key_id"],
        grant=_grant(row),
        tier=Tier(row["tier"]),
        suspended=row["suspended"],
        unused=row["unused"],
        hash=row["hash"],
    )


async def used(tx: Transaction, key_id: UUID) -> None:
    """Record that a key was used just now."""
    await tx.run("keys.used", key_id=key_id)


async def insert(
    tx: Transaction,
    *,
    key_id: UUID,
    prefix: str,
    hash_: bytes,
    name: str,
    grant: Grant,
    created_by: str,
) -> None:
    """Store a new key of this transaction's tenant."""
    await tx.run(
        "keys.insert",
        key_id=key_id,
        prefix=prefix,
        hash=hash_,
        name=name,
        role=grant.role,
        permissions=None if grant.permissions is None else sorted(grant.permissions),
        networks=None if grant.networks is None else [str(each) for each in grant.networks],
        expires_at=grant.expires_at,
        created_by=created_by,
    )


async def get(tx: Transaction, key_id: UUID, *, lock: bool = False) -> StoredKey | None:
    """Return a key of this tenant; `lock` keeps it unchanged until the transaction ends."""
    row = await tx.one("keys.lock" if lock else "keys.get", key_id=key_id)
    return of_row(row) if row else None


async def list_newest(tx: Transaction, *, before: UUID | None, limit: int) -> Sequence[StoredKey]:
    """Return this tenant's keys, newest first, including revoked and expired ones."""
    return [of_row(row) for row in await tx.all("keys.list", before=before, limit=limit)]


async def usable(tx: Transaction) -> int:
    """Return how many keys of this tenant are neither revoked nor expired."""
    row = await tx.one("keys.usable")
    return row["keys"] if row else 0


async def replace(tx: Transaction, key_id: UUID, *, by: UUID, overlap: timedelta) -> None:
    """Let a key expire after the overlap at the latest, because `by` has replaced it."""
    await tx.run("keys.replace", key_id=key_id, by=by, overlap=overlap)


def _grant(row: DictRow) -> Grant:
    permissions, networks = row["permissions"], row["networks"]
    return Grant(
        role=Role(row["role"]),
        permissions=None if permissions is None else frozenset(permissions),
        networks=None if networks is None else tuple(ip_network(each) for each in networks),
        expires_at=row.get("expires_at"),
    )


def of_row(row: DictRow) -> StoredKey:
    """Return the key of a row of `api_keys`."""
    return StoredKey(
        id=row["key_id"],
        prefix=row["prefix"],
        name=row["name"],
        grant=_grant(row),
        created_by=row["created_by"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        replaced_by=row["replaced_by"],
    )
