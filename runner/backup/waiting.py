"""Cancels the executions of a restored deployment that would run now, or run again."""

from uuid import UUID

from runner.audit.events import Action
from runner.auth.caller import By, TenantActor
from runner.backup import objects
from runner.backup.take import UNENDED
from runner.store import executions
from runner.store.db import Database


async def cancel_waiting(superuser: Database, tenant: UUID) -> int:
    """Cancel a tenant's executions that have not ended, with records; return how many.

    One that ran when the backup was made ends as soon as a worker finds that nobody runs it.
    Raises StoreUnavailable if PostgreSQL does not answer; it may be repeated.
    """
    actor = TenantActor(tenant, By())
    cancelled, after = 0, UUID(int=0)
    while True:
        async with superuser.tenant(tenant) as tx:
            rows = await tx.all("backup.waiting", unended=UNENDED, after=after, limit=objects.PAGE)
            for row in rows:
                after = row["execution_id"]
                before = await executions.cancel(tx, after)
                facts = {"state": before.value if before else None}
                actor.record(tx, Action.EXECUTION_CANCEL, "execution", str(after), facts)
        if not rows:
            return cancelled
        cancelled += len(rows)
