"""Everything past its retention goes, and all else stays, tenant by tenant."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from runner.base.settings import Settings
from runner.node.retention import Retention
from runner.store import attempts, executions, files, ledger
from runner.store.db import Database
from runner.store.files import NewFile
from runner.store.objects import Kind, ObjectStore, new_key
from runner.store.retention import RetentionTerms
from runner.words.execution import (
    Claim,
    InputFile,
    StoredObject,
    never_ran,
)
from runner.words.ids import new_id
from runner.words.states import Reason, State
from tests.integration.store.conftest import REQUEST, new_tenant

AT_ONCE = timedelta(seconds=0)
SHA256 = "0" * 64


@dataclass
class Site:
    """A database and a store, and what to put into them."""

    api: Database
    worker: Database
    superuser: "psycopg.Connection[dict[str, Any]]"
    objects: ObjectStore
    folder: Path

    def retention(self, days: int | None = 30, grace: timedelta = AT_ONCE) -> Retention:
        """Return a sweep that takes objects at once, or after a grace."""
        terms = RetentionTerms(days=days, grace=grace, abandoned=timedelta(hours=3))
        return Retention(database=self.worker, objects=self.objects, terms=terms)

    async def unknown(self, tenant: UUID) -> str:
        """Return the key of an object that no row knows."""

        async def body() -> AsyncIterator[bytes]:
            yield b"0123456789"

        key = new_key(tenant, "artifacts")
        await self.objects.write(key, body())
        return key

    def age(self, key: str, by: timedelta) -> None:
        """Make bytes older than they are."""
        then = time.time() - by.total_seconds()
        os.utime(self.folder / key, (then, then))

    async def keys(self, tenant: UUID) -> set[str]:
        """Return the keys that the store has for a tenant."""
        return {key async for some in self.objects.keys(tenant) for key in some}

    async def stored(self, tenant: UUID, kind: Kind = "files") -> str:
        """Return the key of a reserved and written object."""

        async def body() -> AsyncIterator[bytes]:
            yield b"0123456789"

        key = new_key(tenant, kind)
        async with self.api.tenant(tenant) as tx:
            await ledger.reserve(tx, key, 10)
        await self.objects.write(key, body())
        return key

    async def file(self, tenant: UUID, path: str) -> str:
        """Return the object's key of a new file."""
        key = await self.stored(tenant)
        async with self.api.tenant(tenant) as tx:
            assert await ledger.keep(tx, [key])
            await files.put(tx, NewFile(path, 10, SHA256, "text/plain", key))
        return key

    async def execution(self, tenant: UUID, *, ended_days_ago: int | None, takes: str = "") -> UUID:
        """Return an execution with an event, an input and an artifact; None: it still runs."""
        id_ = new_id()
        inputs = (
            (InputFile("in", StoredObject(takes, 10, SHA256)),)
            if takes
            else (InputFile("in", b"x"),)
        )
        wanted = replace(REQUEST, run=replace(REQUEST.run, files=inputs))
        async with self.api.tenant(tenant) as tx:
            executions.insert_later(tx, id_, wanted)
        key = await self.stored(tenant, "artifacts")
        async with self.worker.tenant(tenant) as tx:
            await ledger.keep(tx, [key])
            await tx.run(
                "executions.insert_artifact", execution_id=id_, path="out", size=10,
                sha256=SHA256, media_type="text/plain", object_key=key,
            )  # fmt: skip
        state, ended = (
            ("running", None) if ended_days_ago is None else ("succeeded", ended_days_ago)
        )
        self.superuser.execute(
            "UPDATE executions SET state = %s, ended_at = now() - make_interval(days => %s), "
            "lease_until = CASE WHEN %s = 'running' THEN now() + interval '1 day' END, "
            "result = CASE WHEN %s <> 'running' THEN '{}'::jsonb END WHERE execution_id = %s",
            [state, ended, state, state, id_],
        )
        return id_

    async def left(self, tenant: UUID) -> dict[str, int]:
        """Return how many rows of each kind a tenant has, and objects in the store."""
        counts = {}
        for table in ("executions", "events", "input_files", "artifacts", "files", "objects"):
            row = self.superuser.execute(
                f"SELECT count(*) AS n FROM {table} WHERE tenant_id = %s",  # noqa: S608 - ours
                [tenant],
            ).fetchone()
            counts[table] = row["n"] if row else 0
        keys = [key async for some in self.objects.keys(tenant) for key in some]
        return {**counts, "stored": len(keys)}

    def records(self, tenant: UUID) -> list[dict[str, Any]]:
        """Return what the tenant's log says about removals."""
        rows = self.superuser.execute(
            "SELECT body::jsonb -> 'metadata' AS said FROM audit_events "
            "WHERE tenant_id = %s AND action = 'retention:remove' ORDER BY seq",
            [tenant],
        ).fetchall()
        return [row["said"] for row in rows]


@pytest.fixture
def site(
    api: Database,
    worker: Database,
    superuser: "psycopg.Connection[dict[str, Any]]",
    tmp_path: Path,
) -> Site:
    """Return a site whose objects are in this test's folder."""
    settings = Settings(state_dir=tmp_path)
    return Site(api, worker, superuser, ObjectStore.open(settings), settings.objects_dir)


async def test_what_has_expired_goes_and_nothing_else(site: Site, owner: Database) -> None:
    """Executions past their tenant's days go with all that they have; running ones never do."""
    ours, longer = await new_tenant(owner, "ret-ours"), await new_tenant(owner, "ret-longer")
    site.superuser.execute("UPDATE tenants SET retention_days = 365 WHERE tenant_id = %s", [longer])
    for tenant in (ours, longer):
        for days in (40, 35, 10):
            await site.execution(tenant, ended_days_ago=days)
        await site.execution(tenant, ended_days_ago=None)
        await site.file(tenant, "stays")
    before = await site.left(longer)
    await site.retention().sweep()
    one = {"executions": 2, "events": 2, "input_files": 2, "artifacts": 2}
    assert await site.left(ours) == {**one, "files": 1, "objects": 3, "stored": 3}
    assert await site.left(longer) == before
    # What a removal freed is doomed by it, and gone with the next batch.
    said = site.records(ours)
    assert {name: sum(each[name] for each in said) for name in said[0]} == {
        **one, "sandboxes": 0, "files": 0, "snapshots": 0, "templates": 0, "objects": 2, "bytes": 20
    }  # fmt: skip
    assert site.records(longer) == []
    row = site.superuser.execute(
        "SELECT bytes, objects FROM storage_usage WHERE tenant_id = %s", [ours]
    ).fetchone()
    assert row == {"bytes": 30, "objects": 3}


async def test_nothing_goes_where_all_is_kept_for_ever(site: Site, owner: Database) -> None:
    """Neither the deployment nor the tenant has set a number of days."""
    tenant = await new_tenant(owner, "ret-ever")
    await site.execution(tenant, ended_days_ago=3000)
    before = await site.left(tenant)
    await site.retention(days=None).sweep()
    assert await site.left(tenant) == before


async def test_a_file_goes_when_it_has_expired(site: Site, owner: Database) -> None:
    """Its object goes, too; others stay."""
    tenant = await new_tenant(owner, "ret-files")
    gone = await site.file(tenant, "gone")
    await site.file(tenant, "stays")
    site.superuser.execute(
        "UPDATE files SET expires_at = now() - interval '1 s' WHERE object_key = %s", [gone]
    )
    await site.retention().sweep()
    async with site.api.tenant(tenant) as tx:
        assert [each.path for each in await files.list_after(tx, prefix="", after="", limit=9)] == [
            "stays"
        ]
    assert (await site.left(tenant))["stored"] == 1


async def test_what_a_crash_left_is_removed(site: Site, owner: Database) -> None:
    """It was written and never named: it counts as abandoned after three hours."""
    tenant = await new_tenant(owner, "ret-crash")
    lost, recent = await site.stored(tenant), await site.stored(tenant)
    site.superuser.execute(
        "UPDATE objects SET since = now() - interval '4 h' WHERE object_key = %s", [lost]
    )
    await site.retention().sweep()
    assert [key async for some in site.objects.keys(tenant) for key in some] == [recent]
    async with site.api.tenant(tenant) as tx:
        assert not await ledger.keep(tx, [lost])
        assert await ledger.keep(tx, [recent])


async def test_readers_have_time_to_finish(site: Site, owner: Database) -> None:
    """An overwritten object stays in the store for the grace period."""
    tenant = await new_tenant(owner, "ret-grace")
    await site.file(tenant, "a")
    await site.file(tenant, "a")
    await site.retention(grace=timedelta(minutes=5)).sweep()
    assert (await site.left(tenant))["stored"] == 2
    await site.retention().sweep()
    assert (await site.left(tenant))["stored"] == 1


async def test_what_an_execution_takes_stays_until_it_has_ended(
    site: Site, owner: Database
) -> None:
    """The file is overwritten and deleted meanwhile, but its submitted object stays."""
    tenant = await new_tenant(owner, "ret-input")
    key = await site.file(tenant, "in")
    id_ = await site.execution(tenant, ended_days_ago=None, takes=key)
    async with site.api.tenant(tenant) as tx:
        await files.delete(tx, "in")
    await site.retention().sweep()
    stored = [each async for some in site.objects.keys(tenant) for each in some]
    assert key in stored
    async with site.worker.tenant(tenant) as tx:
        await attempts.finish(
            tx, Claim(id_, tenant, 0), never_ran(State.FAILED, Reason.EXIT_NONZERO, "ended")
        )
    await site.retention().sweep()
    stored = [each async for some in site.objects.keys(tenant) for each in some]
    assert key not in stored


async def test_what_is_in_use_cannot_be_removed(site: Site, owner: Database) -> None:
    """The control: if a used object counts as doomed, PostgreSQL refuses before bytes go."""
    tenant = await new_tenant(owner, "ret-fk")
    key = await site.file(tenant, "a")
    site.superuser.execute("UPDATE objects SET state = 'doomed' WHERE object_key = %s", [key])
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await site.retention().sweep()
    site.superuser.execute("UPDATE objects SET state = 'kept' WHERE object_key = %s", [key])
    assert (await site.left(tenant))["stored"] == 1


async def test_several_workers_do_not_count_twice(site: Site, owner: Database) -> None:
    """With three sweeps at once over 250 executions, each goes and is recorded once."""
    tenant = await new_tenant(owner, "ret-many")
    for _ in range(250):
        await site.execution(tenant, ended_days_ago=40)
    await asyncio.gather(*(site.retention().sweep() for _ in range(3)))
    await site.retention().sweep()
    assert set((await site.left(tenant)).values()) == {0}
    said = site.records(tenant)
    assert len(said) >= 3
    for kind in ("executions", "artifacts", "objects"):
        assert sum(each[kind] for each in said) == 250
    assert all(each["executions"] <= 100 for each in said)


async def test_only_the_worker_may_remove(api: Database) -> None:
    """Only its login may use the functions; the API's login cannot remove objects."""
    for name, values in (
        ("retention.tenants", {"days": 0, "grace": AT_ONCE, "abandoned": AT_ONCE}),
        ("retention.executions", {"days": 0, "limit": 1}),
        ("retention.files", {"limit": 1}),
        ("ledger.forget", {"object_keys": ["x"]}),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with api.tenant(new_id()) as tx:
                await tx.run(name, **values)


async def test_what_is_in_the_store_and_in_no_row_goes(site: Site, owner: Database) -> None:
    """Of a tenant that is gone, or by a write that nobody waited for; and nothing that is known.

    The control: the sweep by rows alone leaves it, whatever its age.
    """
    tenant, gone = await new_tenant(owner, "ret-strays"), new_id()
    named = await site.file(tenant, "a")
    writing = await site.stored(tenant)
    strays = [await site.unknown(tenant), await site.unknown(gone)]
    young = await site.unknown(tenant)
    for key in (named, writing, *strays):
        site.age(key, timedelta(hours=4))
    await site.retention().sweep()
    assert {named, writing, young, strays[0]} == await site.keys(tenant), "the control"
    assert await site.keys(gone) == {strays[1]}, "the control"
    await site.retention().tidy()
    assert await site.keys(tenant) == {named, writing, young}
    assert await site.keys(gone) == set()


async def test_a_write_that_died_with_its_worker_goes(site: Site) -> None:
    """The partial file beside the object goes; one that was touched lately stays."""
    dead, alive = (new_key(new_id(), "artifacts") for _ in range(2))
    for key in (dead, alive):
        staged = site.folder / f"{key}#1"
        staged.parent.mkdir(parents=True)
        staged.write_bytes(b"0123456789")
    site.age(f"{dead}#1", timedelta(hours=4))
    await site.retention().tidy()
    assert [str(path.relative_to(site.folder)) for path in site.folder.rglob("*#1")] == [
        f"{alive}#1"
    ]
