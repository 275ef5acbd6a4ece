"""Secrets in the database: sealed, bound to their place, and read by the worker alone."""

import asyncio
import base64
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from runner.embedded.services import Services
from runner.secrets.envelope import new_key
from runner.secrets.keyring import KeyRing
from runner.secrets.vault import MAX_SECRETS, Vault, rewrap_all
from runner.store import secrets
from runner.store.db import Database
from runner.words.errors import Invalid, KeyUnavailable
from tests.integration.store.conftest import new_tenant

VALUE = "canary-value-6b1f"


def ring(*keys: bytes) -> KeyRing:
    """Return a ring of these keys."""
    return KeyRing.parse("\n".join(base64.b64encode(key).decode() for key in keys), "ring")


KEY = new_key()
"""One for the session, because a rotation covers the whole database that tests share."""


async def test_what_the_api_writes_the_worker_reads(
    owner: Database, api: Database, worker: Database
) -> None:
    """It reads the last value of a name, and nothing after a deletion."""
    tenant = await new_tenant(owner, "kept")
    vault = Vault(ring(KEY))
    for value in (VALUE, VALUE[::-1]):
        async with api.tenant(tenant) as tx:
            stored = await vault.put(tx, tenant, "token", value)
        assert stored.is_new is (value == VALUE)
        async with worker.tenant(tenant) as tx:
            assert await vault.read(tx, tenant, "token") == value
            assert await vault.read(tx, tenant, "other") is None
    async with api.tenant(tenant) as tx:
        assert [each.name for each in await secrets.list_all(tx)] == ["token"]
        assert await secrets.delete(tx, "token")
        assert not await secrets.delete(tx, "token")
    async with worker.tenant(tenant) as tx:
        assert await vault.read(tx, tenant, "token") is None


async def test_the_database_holds_neither_value_nor_key(
    owner: Database, api: Database, postgres: Services
) -> None:
    """A copy of it reveals only that there is a secret, and its length."""
    tenant = await new_tenant(owner, "copied")
    async with api.tenant(tenant) as tx:
        await Vault(ring(KEY)).put(tx, tenant, "token", VALUE)
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        rows = connection.execute(
            "SELECT s.*, k.* FROM secrets s JOIN secret_keys k USING (tenant_id)"
        )
        held = [value for row in rows for value in row if isinstance(value, bytes)]
    assert held
    assert not [each for each in held if VALUE.encode() in each or KEY in each]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT sealed FROM secrets",
        "SELECT * FROM secrets",
        "UPDATE secrets SET updated_at = now() RETURNING sealed",
        "UPDATE secrets SET name = 'other'",
        "UPDATE secret_keys SET kek_id = 'x'",
        "DELETE FROM secret_keys",
        "SELECT * FROM secret_keys_not_under('')",
        "COPY secrets TO STDOUT",
    ],
)
async def test_the_api_login_cannot_read_what_is_sealed(
    statement: str, owner: Database, api: Database, postgres: Services
) -> None:
    """It cannot even for its own tenant, so a hole in the API does not reveal values."""
    tenant = await new_tenant(owner, "unread")
    async with api.tenant(tenant) as tx:
        await Vault(ring(KEY)).put(tx, tenant, "token", VALUE)
    with psycopg.connect(postgres.api_url, autocommit=True) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
        assert connection.execute("SELECT name FROM secrets").fetchall() == [("token",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    ["UPDATE secrets SET sealed = ''", "DELETE FROM secrets", "DELETE FROM secret_keys"],
)
async def test_the_worker_login_cannot_write(statement: str, postgres: Services) -> None:
    """It only uses secrets; only the API changes them."""
    with (
        psycopg.connect(postgres.worker_url, autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


async def test_no_tenant_sees_anothers(owner: Database, api: Database, worker: Database) -> None:
    """The same name is another secret there; without a tenant, there is none."""
    ours, theirs = await new_tenant(owner, "secret-ours"), await new_tenant(owner, "secret-theirs")
    vault = Vault(ring(KEY))
    for tenant, value in ((ours, "ours-value"), (theirs, "theirs-value")):
        async with api.tenant(tenant) as tx:
            await vault.put(tx, tenant, "token", value)
    async with worker.tenant(ours) as tx:
        assert await vault.read(tx, ours, "token") == "ours-value"
    async with worker.no_tenant() as tx:
        assert await vault.read(tx, theirs, "token") is None
        assert await secrets.list_all(tx) == []


MOVES = {
    "to another tenant": "UPDATE secrets SET sealed = (SELECT sealed FROM secrets "
    "WHERE tenant_id = %(theirs)s AND name = 'token') WHERE tenant_id = %(ours)s",
    "with its data key": "UPDATE secret_keys SET wrapped = (SELECT wrapped FROM secret_keys "
    "WHERE tenant_id = %(theirs)s) WHERE tenant_id = %(ours)s",
    "to another name": "UPDATE secrets SET sealed = (SELECT sealed FROM secrets "
    "WHERE tenant_id = %(ours)s AND name = 'other') WHERE tenant_id = %(ours)s AND name = 'token'",
}


@pytest.mark.parametrize("move", MOVES)
async def test_a_value_that_was_moved_does_not_open(
    move: str, owner: Database, api: Database, worker: Database, postgres: Services
) -> None:
    """Even somebody who can write to the database cannot: it is bound to tenant and name."""
    label = f"moved-{sorted(MOVES).index(move)}"
    ours, theirs = await new_tenant(owner, label), await new_tenant(owner, f"{label}-from")
    vault = Vault(ring(KEY))
    for tenant in (ours, theirs):
        async with api.tenant(tenant) as tx:
            await vault.put(tx, tenant, "token", VALUE)
            await vault.put(tx, tenant, "other", VALUE)
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        assert connection.execute(MOVES[move].encode(), {"ours": ours, "theirs": theirs}).rowcount
        connection.commit()
    with pytest.raises(KeyUnavailable, match="database"):
        async with worker.tenant(ours) as tx:
            await vault.read(tx, ours, "token")
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        connection.execute("DELETE FROM secret_keys WHERE tenant_id = %s", [ours])


async def test_first_secrets_written_at_once_share_one_data_key(
    owner: Database, worker: Database, postgres: Services
) -> None:
    """The second one uses the first one's key."""
    tenant = await new_tenant(owner, "at-once")
    vault = Vault(ring(KEY))
    async with Database(SecretStr(postgres.api_url), max_size=8) as api:

        async def put(number: int) -> None:
            async with api.tenant(tenant) as tx:
                await vault.put(tx, tenant, f"token-{number}", f"value-{number}")

        await asyncio.gather(*(put(number) for number in range(8)))
    async with worker.tenant(tenant) as tx:
        assert [await vault.read(tx, tenant, f"token-{n}") for n in range(8)] == [
            f"value-{n}" for n in range(8)
        ]


async def test_a_tenant_has_a_bounded_number(owner: Database, api: Database) -> None:
    """The limit is for new names; an old one may be written again."""
    tenant = await new_tenant(owner, "many")
    vault = Vault(ring(KEY))
    async with api.tenant(tenant) as tx:
        for number in range(MAX_SECRETS):
            await vault.put(tx, tenant, f"token-{number}", VALUE)
        await vault.put(tx, tenant, "token-0", VALUE)
        with pytest.raises(Invalid, match=str(MAX_SECRETS)):
            await vault.put(tx, tenant, "one-more", VALUE)


async def test_a_rotation_wraps_every_tenants_data_key_anew(
    owner: Database, api: Database, worker: Database, postgres: Services
) -> None:
    """Values stay unchanged; afterwards the old key opens nothing, and the new one everything."""
    old, new = KEY, new_key()
    tenants = [await new_tenant(owner, f"rotated-{n}") for n in range(3)]
    for tenant in tenants:
        async with api.tenant(tenant) as tx:
            await Vault(ring(old)).put(tx, tenant, "token", str(tenant))
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        sealed = connection.execute("SELECT * FROM secrets ORDER BY 1, 2").fetchall()
        done = await rewrap_all(owner, ring(new, old))
        assert done.changed >= len(tenants)
        assert done.in_use == {await ring(new).current()}
        connection.rollback()
        assert connection.execute("SELECT * FROM secrets ORDER BY 1, 2").fetchall() == sealed
    assert (await rewrap_all(owner, ring(new, old))).changed == 0
    for tenant in tenants:
        async with worker.tenant(tenant) as tx:
            assert await Vault(ring(new)).read(tx, tenant, "token") == str(tenant)
        with pytest.raises(KeyUnavailable, match="not in the ring"):
            async with worker.tenant(tenant) as tx:
                await Vault(ring(old)).read(tx, tenant, "token")
    # And back, for the tests that come after.
    await rewrap_all(owner, ring(old, new))


async def test_a_rotation_without_the_old_key_changes_nothing(
    owner: Database, api: Database, worker: Database
) -> None:
    """It says whose data keys did not open, and changes nothing."""
    tenant = await new_tenant(owner, "half-rotated")
    async with api.tenant(tenant) as tx:
        await Vault(ring(KEY)).put(tx, tenant, "token", VALUE)
    done = await rewrap_all(owner, ring(new_key()))
    assert done.changed == 0
    assert tenant in done.unopened
    assert await ring(KEY).current() in done.in_use
    async with worker.tenant(tenant) as tx:
        assert await Vault(ring(KEY)).read(tx, tenant, "token") == VALUE


async def test_a_tenant_that_goes_takes_its_secrets_along(
    owner: Database,
    api: Database,
    superuser: "psycopg.Connection[dict[str, Any]]",
    postgres: Services,
) -> None:
    """Without its data key, values in a backup are lost with the next backup as well."""
    tenant = await new_tenant(owner, "gone")
    async with api.tenant(tenant) as tx:
        await Vault(ring(KEY)).put(tx, tenant, "token", VALUE)
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        connection.execute("DELETE FROM tenants WHERE tenant_id = %s", [tenant])
        for table in ("secrets", "secret_keys"):
            count = connection.execute(
                f"SELECT count(*) FROM {table} WHERE tenant_id = %s".encode(),  # noqa: S608
                [tenant],
            ).fetchone()
            assert count == (0,)
        connection.rollback()
