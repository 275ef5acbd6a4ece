"""Quotas as stored: the deployment's by tier, and how much of its own a tenant uses."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from psycopg.rows import DictRow

from runner.quotas.standing import RunStanding, Standing
from runner.quotas.tiers import Quotas
from runner.quotas.waiting import Waiting
from runner.store import tenants
from runner.store.tenants import Tenant
from runner.store.transaction import Transaction
from runner.words.errors import StoreUnavailable
from runner.words.principal import Tier

_QUOTAS = tuple(Quotas.__dataclass_fields__)


async def publish(tx: Transaction, tiers: Mapping[Tier, Quotas]) -> None:
    """Make these the deployment's quotas from now on. Needs the owner's connection."""
    for tier, quotas in tiers.items():
        await tx.run("quotas.publish", tier=tier, **asdict(quotas))
    await tx.one("quotas.weigh")


async def alone(tx: Transaction) -> tuple[Tenant | None, Standing]:
    """Return the tenant and its use, and lock both until this transaction ends.

    It waits for other transactions of this tenant that called it, so the last place is given away
    only once. Raises StoreUnavailable while no tiers are published.
    """
    _, tenant, standing = await tx.together(
        ("quotas.alone", {}), ("tenants.get", {}), ("quotas.standing", {})
    )
    return tenants.of_row(tenant[0]) if tenant else None, _standing(standing)


async def alone_to_run(tx: Transaction) -> tuple[Tenant | None, RunStanding]:
    """Do as `alone`, for an execution: what sandboxes, snapshots and templates use is not read."""
    _, tenant, standing = await tx.together(
        ("quotas.alone", {}), ("tenants.get", {}), ("quotas.standing_of_runs", {})
    )
    return tenants.of_row(tenant[0]) if tenant else None, RunStanding(**_of_runs(standing))


async def waiting_everywhere(tx: Transaction) -> Waiting:
    """Return how many executions wait in the whole deployment."""
    row = await tx.one("scheduling.waiting_everywhere")
    if row is None:
        raise StoreUnavailable("PostgreSQL did not tell how much waits")
    return Waiting(**row)


async def standing(tx: Transaction) -> Standing:
    """Return how much of its quotas the tenant uses. Raises StoreUnavailable without tiers."""
    return _standing(await tx.all("quotas.standing"))


async def standing_of_runs(tx: Transaction) -> RunStanding:
    """Return what `alone_to_run` does, without the lock."""
    return RunStanding(**_of_runs(await tx.all("quotas.standing_of_runs")))


def _standing(rows: Sequence[DictRow]) -> Standing:
    of_runs = _of_runs(rows)
    (row,) = rows
    return Standing(
        **of_runs,
        snapshot_bytes=row["used_snapshot_bytes"],
        snapshots_expire_at=row["snapshots_expire_at"],
        templates=row["used_templates"],
        template_bytes=row["used_template_bytes"],
        templates_expire_at=row["templates_expire_at"],
        sandboxes=row["used_sandboxes"],
        sandbox_memory_mb=row["used_sandbox_memory_mb"],
        sandbox_hours=row["used_sandbox_hours"],
        sandboxes_end_at=row["sandboxes_end_at"],
    )


def _of_runs(rows: Sequence[DictRow]) -> dict[str, Any]:
    if not rows:
        raise StoreUnavailable("no quotas are published: `runner migrate` does that")
    (row,) = rows
    return {
        "tier": Tier(row["tier"]),
        "quotas": Quotas(**{name: row[name] for name in _QUOTAS}),
        "active": row["used_active"],
        "queued": row["used_queued"],
        "cpu_s": row["used_cpu_s"],
        "egress_bytes": row["used_egress_bytes"],
        "storage_bytes": row["used_storage_bytes"],
        "stored_objects": row["used_stored_objects"],
        "now": row["now"],
        "day_ends": row["day_ends"],
    }
