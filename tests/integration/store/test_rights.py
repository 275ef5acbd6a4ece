"""If a right ends while something is made with it, nothing outlives the right."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from runner.auth import keys
from runner.auth.permissions import Permission
from runner.auth.rights import own_grant
from runner.embedded.services import Services
from runner.store import keys as stored_keys
from runner.store import rights, tenants
from runner.store.db import Database
from runner.store.keys import Grant
from runner.store.rights import Ended
from runner.store.transaction import Transaction, query
from runner.words.errors import NotAuthenticated
from runner.words.ids import new_id
from runner.words.principal import Principal, PrincipalKind, Role
from tests.integration.store.conftest import new_tenant


@pytest.fixture
async def api_pool(postgres: Services) -> AsyncIterator[Database]:
    """Return a pool of the API's role with room for transactions side by side."""
    async with Database(SecretStr(postgres.api_url), max_size=3) as database:
        yield database


async def make_key(tx: Transaction, created_by: str) -> Principal:
    """Store an admin's key and return its principal."""
    made, id_ = keys.generate(), new_id()
    await stored_keys.insert(
        tx,
        key_id=id_,
        prefix=made.prefix,
        hash_=made.hash,
        name="test",
        grant=Grant(Role.ADMIN),
        created_by=created_by,
    )
    tenant = await tenants.get(tx)
    assert tenant is not None
    return Principal(tenant.id, id_, PrincipalKind.KEY, made.prefix, Role.ADMIN)


async def make_child(
    database: Database, maker: Principal, checked: asyncio.Event, go_on: asyncio.Event
) -> UUID:
    """Make a key as a route does, with a pause between check and end."""
    async with database.tenant(maker.tenant_id) as tx:
        await own_grant(tx, maker, Permission.API_KEY_WRITE)
        checked.set()
        await go_on.wait()
        return (await make_key(tx, maker.actor)).id


@pytest.mark.parametrize("generation", [0, 1])
async def test_a_key_that_is_made_while_its_maker_is_revoked_is_revoked(
    owner: Database, api_pool: Database, generation: int
) -> None:
    """This holds even if the maker is a child of the revoked key, whose row nobody had locked."""
    tenant = await new_tenant(owner, f"rights-race-{generation}")
    async with api_pool.tenant(tenant) as tx:
        first = await make_key(tx, "user:test")
        maker = await make_key(tx, first.actor) if generation else first
    checked, go_on = asyncio.Event(), asyncio.Event()

    async def revoke() -> Ended:
        await checked.wait()
        async with api_pool.tenant(tenant) as tx:
            return await rights.end_key(tx, first.id)

    making = asyncio.create_task(make_child(api_pool, maker, checked, go_on))
    revoking = asyncio.create_task(revoke())
    await checked.wait()
    await asyncio.sleep(0.2)
    assert not revoking.done(), "it waits for what is being made"
    go_on.set()
    child = await making
    assert (await revoking).keys == 2 + generation
    async with api_pool.tenant(tenant) as tx:
        stored = await stored_keys.get(tx, child)
    assert stored is not None
    assert stored.revoked_at is not None


async def test_a_key_that_was_revoked_since_its_request_was_let_in_makes_nothing(
    owner: Database, api_pool: Database
) -> None:
    tenant = await new_tenant(owner, "rights-late")
    async with api_pool.tenant(tenant) as tx:
        maker = await make_key(tx, "user:test")
        await rights.end_key(tx, maker.id)
    with pytest.raises(NotAuthenticated):
        await make_child(api_pool, maker, asyncio.Event(), asyncio.Event())


async def chain(
    owner: Database, superuser: "psycopg.Connection[Any]", length: int
) -> tuple[UUID, UUID]:
    """Return a new tenant and the first of a chain of keys, each made by the one before."""
    tenant = await new_tenant(owner, f"rights-chain-{new_id()}")
    superuser.execute(
        "INSERT INTO api_keys (key_id, tenant_id, prefix, hash, role, name, created_by) "
        "SELECT gen_random_uuid(), %(t)s, %(p)s || n, sha256(n::text::bytea), 'admin', 'chain', "
        "CASE n WHEN 1 THEN 'user:test' ELSE 'key:' || %(p)s || n - 1 END "
        "FROM generate_series(1, %(n)s) n",
        {"t": tenant, "p": f"{tenant}-", "n": length},
    )
    # PostgreSQL would do it by itself, but at a moment of its own: until then, it plans for what
    # other tests had stored.
    superuser.execute("ANALYZE api_keys")
    row = superuser.execute(
        "SELECT key_id FROM api_keys WHERE prefix = %s", [f"{tenant}-1"]
    ).fetchone()
    assert row is not None
    return tenant, row["key_id"]


async def test_a_long_chain_of_keys_is_ended_whole(
    owner: Database, api_pool: Database, superuser: "psycopg.Connection[Any]"
) -> None:
    tenant, first = await chain(owner, superuser, 5000)
    async with api_pool.tenant(tenant) as tx:
        assert (await rights.end_key(tx, first)).keys == 5000


def rows_read(plan: dict[str, Any]) -> Iterator[int]:
    """Yield how many rows of `api_keys` each part of a plan has read."""
    if plan.get("Relation Name") == "api_keys":
        each = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        yield plan["Actual Loops"] * each
    for part in plan.get("Plans", ()):
        yield from rows_read(part)


async def test_ending_a_chain_reads_each_of_its_keys_a_few_times(
    owner: Database, superuser: "psycopg.Connection[Any]"
) -> None:
    """The control: without the indexes, each key reads all keys."""
    length = 1000
    tenant, first = await chain(owner, superuser, length)
    end = query("rights.end")
    given: dict[str, Any] = {
        "key_id": first,
        "maker": None,
        "keys": [],
        "invitations": [],
        "ports": False,
        "spared": None,
    }

    def read() -> int:
        explained = superuser.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {end}".encode(), given)
        row = explained.fetchone()
        assert row is not None
        return sum(rows_read(row["QUERY PLAN"][0]["Plan"]))

    with superuser.transaction(force_rollback=True):
        superuser.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
        with superuser.transaction(force_rollback=True):
            assert read() < 20 * length
        superuser.execute("DROP INDEX api_keys_maker, api_keys_successor")
        assert read() > length**2 / 2
