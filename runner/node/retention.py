"""Removes what is kept no longer: executions, sandboxes, files, snapshots, templates, objects.

Each batch is one transaction of one tenant, with its record in that tenant's log; any number of
workers may do it at once. An object is gone before the transaction commits that takes it off the
ledger: a crash in between repeats its removal, which does no harm.
"""

from dataclasses import asdict
from datetime import timedelta
from uuid import UUID

import structlog

from runner.audit import events as audit
from runner.base.duties import for_each
from runner.store import ledger, retention
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.store.retention import RetentionTerms
from runner.store.transaction import Transaction
from runner.words.errors import RunnerError

BATCH = 100
GRACE = timedelta(minutes=5)
ABANDONED = timedelta(hours=3)
TIDY_EVERY_S = 6 * 3600.0
"""How often the whole store is listed and compared with the ledger."""


class Retention:
    """One sweep, which may be repeated by any number of workers."""

    def __init__(self, *, database: Database, objects: ObjectStore, terms: RetentionTerms) -> None:
        self._database = database
        self._objects = objects
        self._terms = terms
        self._log = structlog.get_logger("runner.worker")

    async def tidy(self) -> None:
        """Remove what is in the store and in no row: of writers that died, of tenants that went.

        An object is on the ledger before its first byte, until after its last: what was listed and
        is not on the ledger later has no use. What has changed lately is left alone, as a write
        that was given up may still be under way.
        """
        unfinished = await self._objects.end_unfinished(self._terms.abandoned)
        strays = 0
        async for some in self._objects.older_than(self._terms.abandoned):
            for tenant_id, keys in some.items():
                async with self._database.tenant(tenant_id) as tx:
                    known = await ledger.known(tx, keys)
                unknown = [key for key in keys if key not in known]
                await self._objects.remove(unknown)
                strays += len(unknown)
        if unfinished or strays:
            self._log.warning("strays_removed_from_store", objects=strays, unfinished=unfinished)

    async def sweep(self) -> None:
        """Remove everything that is due now."""
        async with self._database.no_tenant() as tx:
            due = await retention.tenants_with_expired(tx, self._terms)
        await for_each(due, self._all_of)

    async def _all_of(self, tenant_id: UUID) -> None:
        try:
            while await self._batch(tenant_id):
                pass
        except RunnerError as error:
            # The next tenant's turn must not depend on this one's objects.
            self._log.warning("retention_failed", tenant=str(tenant_id), error=error.detail)

    async def _batch(self, tenant_id: UUID) -> bool:
        """Remove some of one tenant's; return whether there was anything."""
        async with self._database.tenant(tenant_id) as tx:
            executions = await retention.remove_executions(tx, self._terms, BATCH)
            sandboxes = await retention.remove_sandboxes(tx, self._terms, BATCH)
            files = await retention.remove_files(tx, BATCH)
            snapshots = await retention.remove_snapshots(tx, BATCH)
            templates = await retention.remove_templates(tx, BATCH)
            objects = await self._remove_objects(tx)
            counts = {
                **asdict(executions),
                "sandboxes": sandboxes,
                "files": files,
                "snapshots": snapshots,
                "templates": templates,
                "objects": len(objects),
            }
            if not any(counts.values()):
                return False
            freed = sum(each.bytes for each in objects)
            audit.append(tx, tenant_id, _event({**counts, "bytes": freed}))
        self._log.info("retention", tenant=str(tenant_id), **counts)
        return True

    async def _remove_objects(self, tx: Transaction) -> list[ledger.Removable]:
        found = await ledger.take_removable(
            tx, grace=self._terms.grace, abandoned=self._terms.abandoned, limit=BATCH
        )
        keys = [each.object_key for each in found]
        # PostgreSQL refuses to forget what is referred to: before the bytes are gone, not after.
        await ledger.forget(tx, keys)
        await self._objects.remove(keys)
        return found


def _event(counts: dict[str, int]) -> audit.AuditEvent:
    return audit.AuditEvent(
        actor="system:worker",
        action=audit.Action.RETENTION_REMOVE,
        outcome=audit.Outcome.SUCCESS,
        resource_type="tenant",
        metadata=counts,
    )
