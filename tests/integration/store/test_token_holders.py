"""Keys are tried in turn if an address names neither its signer nor its sandbox."""

from typing import Any
from uuid import UUID

import pytest

from runner.auth import keys
from runner.store import holders, sandboxes
from runner.store.db import Database
from runner.tenants.tenancy import create_key
from runner.words.errors import Conflict
from runner.words.ids import new_id
from runner.words.principal import Role
from tests.integration.store.conftest import LIMITS
from tests.integration.store.test_living_sandboxes import ASKED

SIZE = 28


async def key_of(owner: Database, tenant: str) -> tuple[UUID, str]:
    """Make a key of a tenant; return the tenant and the key's prefix."""
    made = await create_key(owner, tenant=tenant, role=Role.OWNER, name="test", max_limits=LIMITS)
    return made.tenant_id, keys.prefix_of(made.token) or ""


async def sandbox_of(api: Database, tenant: UUID, prefix: str) -> UUID:
    """Store a sandbox that a key made."""
    id_ = new_id()
    async with api.tenant(tenant) as tx:
        sandboxes.insert_later(tx, id_, ASKED, created_by=f"key:{prefix}")
    return id_


async def noted(api: Database, tenant: UUID, sandbox: UUID, prefix: str) -> None:
    """Give a key a token."""
    async with api.tenant(tenant) as tx:
        await holders.add(tx, sandbox, prefix)


async def named(api: Database, sandbox: UUID) -> set[str]:
    """Return who may have signed an address that names its sandbox."""
    async with api.statements() as tx:
        return set(await holders.of(tx, sandbox))


async def searched(
    api: Database, limit: int = 10_000, each: int = 10_000
) -> list[tuple[UUID, str]]:
    """Return who may have signed an address that does not."""
    async with api.statements() as tx:
        found = await holders.search(tx, limit=limit, each=each)
    pieces = [found[start : start + SIZE] for start in range(0, len(found), SIZE)]
    return [(UUID(bytes=piece[:16]), piece[16:].decode()) for piece in pieces]


async def test_keys_that_may_be_used_are_found_for_sandboxes_that_live(
    api: Database, owner: Database, superuser: Any
) -> None:
    """A revoked or expired key, and a sandbox that has ended, are nobody's to sign for."""
    tenant, maker = await key_of(owner, "holders")
    _, other = await key_of(owner, "holders")
    sandbox = await sandbox_of(api, tenant, maker)
    await noted(api, tenant, sandbox, other)
    await noted(api, tenant, sandbox, other)

    async def expect(prefixes: set[str]) -> None:
        assert await named(api, sandbox) == prefixes
        found = await searched(api)
        assert {prefix for where, prefix in found if where == sandbox} == prefixes
        assert len(found) == len(set(found))

    await expect({maker, other})
    change = "UPDATE api_keys SET {} WHERE prefix = %s"
    superuser.execute(change.format("revoked_at = now()"), [maker])
    await expect({other})
    superuser.execute(change.format("expires_at = now() - interval '1 s'"), [other])
    await expect(set())
    superuser.execute(change.format("expires_at = NULL"), [other])
    await expect({other})
    superuser.execute(
        "UPDATE sandboxes SET state = 'ended', ended_at = now(), reason = 'killed', "
        "lease_until = NULL WHERE sandbox_id = %s",
        [sandbox],
    )
    await expect(set())


async def test_no_tenant_hides_anothers(api: Database, owner: Database) -> None:
    """However many newer ones somebody has, each tenant has its turn, and its bound."""
    tenant, prefix = await key_of(owner, "quiet")
    older = await sandbox_of(api, tenant, prefix)
    quiet = await sandbox_of(api, tenant, prefix)
    loud_tenant, loud = await key_of(owner, "loud")
    newest = [await sandbox_of(api, loud_tenant, loud) for _ in range(6)][::-1]
    ours = {older, quiet, *newest}
    # Other tests have left sandboxes, of which each tenant has one first turn at most.
    every = [each for each in await searched(api) if each[0] in ours]
    assert every[:4] == [(newest[0], loud), (quiet, prefix), (newest[1], loud), (older, prefix)]
    assert [where for where, _ in every[4:]] == newest[2:]
    bounded = [where for where, _ in await searched(api, each=2) if where in ours]
    assert bounded == [newest[0], quiet, newest[1], older]
    assert len(await searched(api, limit=2)) == 2


async def test_so_many_keys_hold_tokens_of_one_sandbox_and_no_more(
    api: Database, owner: Database, superuser: Any
) -> None:
    """A further one is refused. Those that exist may ask again; one that ends makes room."""
    tenant, maker = await key_of(owner, "many")
    sandbox = await sandbox_of(api, tenant, maker)
    more = [(await key_of(owner, "many"))[1] for _ in range(holders.MOST_OF_ONE + 1)]
    for prefix in more[:-1]:
        await noted(api, tenant, sandbox, prefix)
    with pytest.raises(Conflict, match="revoke one"):
        await noted(api, tenant, sandbox, more[-1])
    await noted(api, tenant, sandbox, more[0])
    assert await named(api, sandbox) == {maker, *more[:-1]}
    superuser.execute("UPDATE api_keys SET revoked_at = now() WHERE prefix = %s", [more[1]])
    await noted(api, tenant, sandbox, more[-1])
    assert more[-1] in await named(api, sandbox)


async def test_a_named_sandbox_is_found_by_indexes(superuser: Any) -> None:
    """Nothing of other tenants is read for it."""
    plans = []
    superuser.execute("SET enable_seqscan = off")
    for table, rest in (("sandboxes", "AND state <> 'ended'"), ("sandbox_holders", "")):
        rows = superuser.execute(
            f"EXPLAIN SELECT FROM {table} WHERE sandbox_id = %s {rest}",
            [new_id()],
        ).fetchall()
        plans.append("\n".join(row["QUERY PLAN"] for row in rows))
    assert "sandboxes_living_by_id" in plans[0]
    assert "sandbox_holders_sandbox" in plans[1]
