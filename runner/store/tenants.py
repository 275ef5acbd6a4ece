"""Tenants, as stored: each reads its own row, and the operator makes and changes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from runner.store.executions import LIMITS
from runner.store.transaction import Transaction
from runner.words.execution import JSON
from runner.words.principal import Tier
from runner.words.resources import Limits
from runner.words.sandbox import Isolation

ERASURE = timedelta(minutes=10)
"""How long deleting all rows of a tenant may take."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a tenant. `max_limits` is the most that one execution may ask for.

    `egress_ceiling` holds rules that limit the tenant's, in addition to the deployment's ceiling.
    `max_concurrency` and `quotas` (by the names in `runner.quotas.tiers`) replace the tier's
    numbers.
    """

    tier: Tier
    max_concurrency: int | None
    max_limits: Limits
    required_isolation: Isolation | None = None
    egress_ceiling: tuple[JSON, ...] | None = None
    retention_days: int | None = None
    """Days for which ended executions are kept; None means the deployment's setting."""
    quotas: Mapping[str, JSON] = field(default_factory=dict)
    reuse: bool = False
    """Whether an execution may ask for a sandbox that serves several executions of the tenant."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer of the deployment. `suspended_why` is set while it is suspended."""

    id: UUID
    name: str
    terms: Terms
    created_at: datetime
    suspended_at: datetime | None
    suspended_why: str | None


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a tenant's audit log."""

    seq: int
    hash: bytes


async def find(tx: Transaction, name: str) -> UUID | None:
    """Return the id of the tenant with that name, or None. Needs the owner's connection."""
    row = await tx.one("tenants.find", name=name)
    return row["tenant_id"] if row else None


async def insert(tx: Transaction, tenant_id: UUID, name: str, terms: Terms) -> bool:
    """Store a new tenant in its own transaction; return False if the name is taken."""
    return bool(await tx.run("tenants.insert", tenant_id=tenant_id, name=name, **_columns(terms)))


async def get(tx: Transaction) -> Tenant | None:
    """Return the tenant of this transaction."""
    row = await tx.one("tenants.get")
    return of_row(row) if row else None


async def list_by_name(
    tx: Transaction, *, after: str | None, limit: int, part: str | None = None
) -> list[Tenant]:
    """Return tenants by name: those that follow `after`, and have `part` in their name.

    Only the operator sees others.
    """
    rows = await tx.all("tenants.list", after=after, limit=limit, part=part)
    return [of_row(row) for row in rows]


async def update(tx: Transaction, terms: Terms) -> None:
    """Change the terms of the transaction's tenant."""
    await tx.run("tenants.update", **_columns(terms))


async def suspend(tx: Transaction, why: str) -> bool:
    """Suspend the transaction's tenant; return False if it is suspended already."""
    return bool(await tx.run("tenants.suspend", why=why))


async def resume(tx: Transaction) -> bool:
    """End the tenant's suspension; return False if there was none."""
    return bool(await tx.run("tenants.resume"))


async def active(tx: Transaction) -> int:
    """Return how many executions and sandboxes of the tenant are active."""
    row = await tx.one("tenants.active")
    return int(row["active"]) if row else 0


async def shared(tx: Transaction) -> tuple[int, int]:
    """Return how many of its templates are everybody's, and how many of others are built on any.

    Needs the operator's login.
    """
    row = await tx.one("tenants.shared")
    return (int(row["public"]), int(row["below_others"])) if row else (0, 0)


async def head(tx: Transaction) -> Head | None:
    """Return the end of the tenant's audit log, or None if it is empty."""
    row = await tx.one("tenants.head")
    return Head(**row) if row else None


async def erase(tx: Transaction) -> dict[str, int]:
    """Delete every row of a suspended tenant that runs nothing; return the numbers by table."""
    tx.patiently(ERASURE)
    return {row["name"]: row["removed"] for row in await tx.all("tenants.erase")}


def _columns(terms: Terms) -> dict[str, Any]:
    return {
        "tier": terms.tier,
        "max_concurrency": terms.max_concurrency,
        "max_limits": Jsonb(LIMITS.dump_python(terms.max_limits)),
        "required_isolation": terms.required_isolation,
        "egress_ceiling": None
        if terms.egress_ceiling is None
        else Jsonb(list(terms.egress_ceiling)),
        "retention_days": terms.retention_days,
        "quotas": Jsonb(dict(terms.quotas)),
        "reuse": terms.reuse,
    }


def of_row(row: DictRow) -> Tenant:
    """Return the tenant of a row of `tenants`."""
    ceiling = row["egress_ceiling"]
    return Tenant(
        id=row["tenant_id"],
        name=row["name"],
        terms=Terms(
            tier=Tier(row["tier"]),
            max_concurrency=row["max_concurrency"],
            max_limits=LIMITS.validate_python(row["max_limits"]),
            required_isolation=row["required_isolation"] and Isolation(row["required_isolation"]),
            egress_ceiling=None if ceiling is None else tuple(ceiling),
            retention_days=row["retention_days"],
            quotas=row["quotas"],
            reuse=row["reuse"],
        ),
        created_at=row["created_at"],
        suspended_at=row["suspended_at"],
        suspended_why=row["suspended_why"],
    )
