"""Removes what is past its retention: finds it across tenants, removes it tenant by tenant."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from runner.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class RetentionTerms:
    """The times for which things are kept. `days` is for tenants without a number of their own."""

    days: int | None
    grace: timedelta
    """Time between an object's last use and its removal, so that its readers can finish."""
    abandoned: timedelta
    """Time after which an unfinished write counts as given up."""


@dataclass(frozen=True, slots=True)
class Removed:
    """The number of rows that were removed with executions."""

    executions: int
    events: int
    input_files: int
    artifacts: int


async def tenants_with_expired(tx: Transaction, terms: RetentionTerms) -> list[UUID]:
    """Return the tenants that have something to remove."""
    rows = await tx.all(
        "retention.tenants", days=terms.days, grace=terms.grace, abandoned=terms.abandoned
    )
    return [row["tenant_id"] for row in rows]


async def remove_executions(tx: Transaction, terms: RetentionTerms, limit: int) -> Removed:
    """Remove executions of this tenant that ended too long ago, at most `limit`."""
    row = await tx.one("retention.executions", days=terms.days, limit=limit)
    if row is None:
        raise RuntimeError("PostgreSQL removed executions and returned nothing")
    return Removed(**row)


async def remove_files(tx: Transaction, limit: int) -> int:
    """Remove files of this tenant that have expired; return how many."""
    row = await tx.one("retention.files", limit=limit)
    return int(row["files"]) if row else 0


async def remove_snapshots(tx: Transaction, limit: int) -> int:
    """Remove snapshots of this tenant that have expired; return how many."""
    row = await tx.one("retention.snapshots", limit=limit)
    return int(row["snapshots"]) if row else 0


async def remove_templates(tx: Transaction, limit: int) -> int:
    """Remove templates of this tenant that nothing stands or rests on; return how many."""
    row = await tx.one("retention.templates", limit=limit)
    return int(row["templates"]) if row else 0


async def remove_sandboxes(tx: Transaction, terms: RetentionTerms, limit: int) -> int:
    """Remove sandboxes of this tenant that ended too long ago; return how many."""
    row = await tx.one("retention.sandboxes", days=terms.days, limit=limit)
    return int(row["sandboxes"]) if row else 0
