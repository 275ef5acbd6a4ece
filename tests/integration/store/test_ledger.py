"""The ledger of objects: sums that cannot be wrong, and quotas that two cannot share."""

import asyncio
import random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from runner.embedded.services import Services
from runner.store import files, ledger
from runner.store.db import Database
from runner.store.files import NewFile
from runner.store.objects import new_key
from runner.words.errors import StorageFull
from runner.words.ids import new_id
from tests.integration.store.conftest import new_tenant

Superuser = psycopg.Connection[dict[str, Any]]
SHA256 = "0" * 64


async def race(postgres: Services, tenant: UUID) -> int:
    """Return how many of thirty concurrent reservations of 100 bytes are accepted."""

    async def reserve(pool: Database) -> bool:
        try:
            async with pool.tenant(tenant) as tx:
                await ledger.reserve(tx, new_key(tenant, "files"), 100)
        except StorageFull:
            return False
        return True

    async with Database(SecretStr(postgres.api_url), max_size=8) as pool:
        return sum(await asyncio.gather(*(reserve(pool) for _ in range(30))))


async def with_room_for_ten(owner: Database, superuser: Superuser, name: str) -> UUID:
    """Return a tenant that may store 1000 bytes."""
    tenant = await new_tenant(owner, name)
    superuser.execute(
        "UPDATE tenants SET quotas = '{\"storage_bytes\": 1000}' WHERE tenant_id = %s", [tenant]
    )
    return tenant


async def test_the_last_place_is_one_reservations(
    postgres: Services, owner: Database, superuser: Superuser
) -> None:
    """If ten fit and thirty come at once, ten are accepted."""
    tenant = await with_room_for_ten(owner, superuser, "ledger-race")
    assert await race(postgres, tenant) == 10


async def test_the_race_is_lost_once_nothing_counts(
    postgres: Services, owner: Database, superuser: Superuser
) -> None:
    """The control: without the trigger that keeps the sum, every one is accepted."""
    tenant = await with_room_for_ten(owner, superuser, "ledger-control")
    superuser.execute("INSERT INTO storage_usage VALUES (%s, 0, 0)", [tenant])
    superuser.execute("ALTER TABLE objects DISABLE TRIGGER count_object")
    try:
        assert await race(postgres, tenant) == 30
    finally:
        superuser.execute("ALTER TABLE objects ENABLE TRIGGER count_object")


async def test_the_sum_is_that_of_the_objects(
    api: Database, worker: Database, owner: Database, superuser: Superuser
) -> None:
    """This holds after any mixture of writing, naming, overwriting, deleting and forgetting."""
    tenant = await new_tenant(owner, "ledger-sum")
    chance = random.Random(7)  # noqa: S311 - which mixture does not matter, but that it is known
    for _ in range(150):
        key, size = new_key(tenant, "files"), chance.randrange(100)
        async with api.tenant(tenant) as tx:
            await ledger.reserve(tx, key, size)
        path = f"f{chance.randrange(8)}"
        async with api.tenant(tenant) as tx:
            match chance.randrange(4):
                case 0:
                    await ledger.give_up(tx, key)
                case 1:
                    await files.delete(tx, path)
                case _:
                    assert await ledger.keep(tx, [key])
                    await files.put(tx, NewFile(path, size, SHA256, "text/plain", key))
        if chance.randrange(10) == 0:
            async with worker.tenant(tenant) as tx:
                rows = superuser.execute(
                    "SELECT object_key FROM objects WHERE tenant_id = %s AND state = 'doomed'",
                    [tenant],
                ).fetchall()
                await ledger.forget(tx, [row["object_key"] for row in rows])
    summed = superuser.execute(
        "SELECT sum(bytes) AS bytes, count(*) AS objects FROM objects "
        "WHERE tenant_id = %s AND state <> 'doomed'",
        [tenant],
    ).fetchone()
    kept = superuser.execute(
        "SELECT bytes, objects FROM storage_usage WHERE tenant_id = %s", [tenant]
    ).fetchone()
    assert kept == summed
    # Every file has an object that is kept, and no object is kept without a use.
    unused = superuser.execute(
        "SELECT FROM objects o FULL JOIN files f USING (tenant_id, object_key) "
        "WHERE tenant_id = %s AND (o.state = 'kept') IS DISTINCT FROM (f.path IS NOT NULL)",
        [tenant],
    ).fetchall()
    assert unused == []


async def test_an_object_is_below_its_tenants_prefix(api: Database, owner: Database) -> None:
    """PostgreSQL checks that as well, whatever composed the key."""
    ours, theirs = await new_tenant(owner, "ledger-ours"), new_id()
    for key in (f"tenants/{theirs}/files/x", "x", f"tenants/{ours}"):
        with pytest.raises(psycopg.errors.CheckViolation):
            async with api.tenant(ours) as tx:
                await tx.run("ledger.reserve", object_key=key, bytes=1)


async def test_a_file_cannot_be_given_another_tenants_object(
    api: Database, owner: Database
) -> None:
    """The foreign key stays within the tenant."""
    ours, theirs = await new_tenant(owner, "ledger-a"), await new_tenant(owner, "ledger-b")
    key = new_key(theirs, "files")
    async with api.tenant(theirs) as tx:
        await ledger.reserve(tx, key, 1)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        async with api.tenant(ours) as tx:
            await files.put(tx, NewFile("a", 1, SHA256, "text/plain", key))


async def test_an_object_of_unknown_size_takes_the_room_that_it_needs(
    api: Database, owner: Database
) -> None:
    """At most what was reserved, and only while it is written: nobody makes room afterwards."""
    tenant = await new_tenant(owner, "ledger-unknown")
    key = new_key(tenant, "files")
    async with api.tenant(tenant) as tx:
        assert (await ledger.reserve_room(tx, key, 1000)).bytes == 1000
        assert not await ledger.keep_as(tx, key, 1001)
        assert await ledger.keep_as(tx, key, 300)
        assert not await ledger.keep_as(tx, key, 0)
        (standing,) = await tx.all("ledger.standing")
    assert standing["bytes"] == 300


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE storage_usage SET bytes = 0",
        "DELETE FROM storage_usage",
        "UPDATE objects SET bytes = 0",
        "DELETE FROM objects",
        "UPDATE tenants SET quotas = '{}'",
    ],
)
async def test_the_api_cannot_make_room(postgres: Services, statement: str) -> None:
    """It may write neither sums nor limits."""
    with (
        psycopg.connect(postgres.api_url, autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())
