"""A right that ends while something is being made with it: nothing that was made outlives it."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from pydantic import SecretStr

from runner.auth import keys
from runner.auth.permissions import Permission
from runner.auth.rights import own_grant
from runner.embedded.services import Services
from runner.errors import NotAuthenticated
from runner.ids import new_id
from runner.models import Principal, PrincipalKind, Role
from runner.store import keys as stored_keys
from runner.store import rights, tenants
from runner.store.db import Database, Transaction
from runner.store.keys import Grant
from runner.store.rights import Ended
from tests.integration.store.conftest import new_tenant


@pytest.fixture
async def api_pool(postgres: Services) -> AsyncIterator[Database]:
    """Return a pool of the API's role with room for transactions side by side."""
    async with Database(SecretStr(postgres.api_url), max_size=3) as database:
        yield database


async def make_key(tx: Transaction, created_by: str) -> Principal:
    """Store an admin's key and return who presents it."""
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
    """Make a key as a route does, with a pause between the check and the end."""
    async with database.tenant(maker.tenant_id) as tx:
        await own_grant(tx, maker, Permission.API_KEY_WRITE)
        checked.set()
        await go_on.wait()
        return (await make_key(tx, maker.actor)).id


@pytest.mark.parametrize("generation", [0, 1])
async def test_a_key_that_is_made_while_its_maker_is_revoked_is_revoked(
    owner: Database, api_pool: Database, generation: int
) -> None:
    """Also if the maker is a child of the one that is revoked, whose row nobody had locked."""
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
