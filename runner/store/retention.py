"""What is kept no longer: found across tenants, removed tenant by tenant."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from runner.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class RetentionTerms:
    """How long things are kept. `days` is for tenants that have no number of their own."""

    days: int | None
    grace: timedelta
    """Between an object's last use and its removal: readers that began before finish."""
    abandoned: timedelta
    """After which what is being written counts as given up."""


@dataclass(frozen=True, slots=True)
class Removed:
    """How many rows a removal of executions took away."""

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
    """Remove executions of this tenant that ended too long ago; none that runs."""
    row = await tx.one("retention.executions", days=terms.days, limit=limit)
    if row is None:
        raise RuntimeError("PostgreSQL removed executions and returned nothing")
    return Removed(**row)


async def remove_files(tx: Transaction, limit: int) -> int:
    """Remove files of this tenant that have expired; return how many."""
    row = await tx.one("retention.files", limit=limit)
    return int(row["files"]) if row else 0
