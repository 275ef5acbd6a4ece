"""The database keeps tenants apart, whatever a query forgets."""

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from runner.embedded.services import Services
from runner.store import executions, projects
from runner.store.db import Database
from runner.words.ids import new_id
from tests.integration.store.conftest import REQUEST, new_tenant

ROLES = ("runner_api", "runner_worker", "runner_operator", "runner_definer", "runner_eraser")


async def submit(api: Database, tenant: UUID) -> UUID:
    """Store an execution of a tenant."""
    id_ = new_id()
    async with api.tenant(tenant) as tx:
        executions.insert_later(tx, id_, REQUEST)
    return id_


async def furnish(api: Database, tenant: UUID, execution: UUID) -> None:
    """Give a tenant rows that statements may look for; each has its id."""
    async with api.tenant(tenant) as tx:
        name = f"p-{execution}"
        await projects.insert(tx, name, description="", egress_policy=None, created_by="test")


def test_every_table_forces_it_for_every_command(
    postgres: Services, superuser: "psycopg.Connection[dict[str, Any]]"
) -> None:
    """Each table with a tenant has ENABLE, FORCE, and a policy with USING and WITH CHECK."""
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        tables = connection.execute(
            "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, r.rolname, "
            "  (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid AND p.polcmd = '*' "
            "   AND p.polqual IS NOT NULL AND p.polwithcheck IS NOT NULL AND p.polroles = '{0}') "
            "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' "
            "JOIN pg_roles r ON r.oid = c.relowner WHERE c.relkind = 'r'"
        ).fetchall()
    assert len(tables) >= 17
    for name, enabled, forced, owner, policies in tables:
        assert (enabled, forced, owner, policies) == (True, True, "runner_owner", 1), name


def test_no_role_may_look_past_it(superuser: "psycopg.Connection[dict[str, Any]]") -> None:
    """No role is superuser, bypasses policies, makes roles or owns a table."""
    rows = superuser.execute(
        "SELECT rolname, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb AS mighty, "
        "rolcanlogin FROM pg_roles WHERE rolname = ANY (%s)",
        [list(ROLES)],
    ).fetchall()
    assert {row["rolname"]: (row["mighty"], row["rolcanlogin"]) for row in rows} == {
        "runner_api": (False, True),
        "runner_worker": (False, True),
        "runner_operator": (False, True),
        "runner_definer": (False, False),
        "runner_eraser": (False, False),
    }
    owner = superuser.execute(
        "SELECT rolsuper OR rolbypassrls AS mighty FROM pg_roles WHERE rolname = 'runner_owner'"
    ).fetchone()
    assert owner == {"mighty": False}


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM executions",
        "SELECT e.* FROM executions e JOIN events v USING (execution_id)",
        "UPDATE executions SET cancel_requested_at = now() RETURNING execution_id",
        "SELECT * FROM tenants",
        "SELECT * FROM api_keys",
        "SELECT * FROM audit_events",
        "SELECT * FROM events",
        "SELECT * FROM executions WHERE tenant_id IS NOT NULL OR true",
        "SELECT e.execution_id FROM executions e, tenants t",
        "SELECT a.* FROM executions a LEFT JOIN executions b ON a.tenant_id <> b.tenant_id",
        "SELECT (SELECT array_agg(execution_id) FROM executions), name FROM tenants",
        "SELECT execution_id FROM executions UNION SELECT tenant_id FROM tenants",
        "WITH RECURSIVE all_of AS (SELECT * FROM executions) SELECT execution_id FROM all_of",
        "SELECT row_to_json(e) FROM executions e",
        "SELECT * FROM executions TABLESAMPLE SYSTEM (100)",
        "SELECT execution_id FROM executions WHERE tenant_id <> app_tenant() OR state <> ''",
        "DELETE FROM projects RETURNING *",
        "SELECT queue_position(execution_id) FROM executions",
    ],
)
async def test_hand_written_sql_gets_nothing_of_another_tenant(
    statement: str, api: Database, owner: Database, postgres: Services
) -> None:
    """Any statement gets only the tenant's own rows; without a tenant, it gets none."""
    ours, theirs = await new_tenant(owner, "rls-ours"), await new_tenant(owner, "rls-theirs")
    for tenant in (ours, theirs):
        await furnish(api, tenant, await submit(api, tenant))
    with psycopg.connect(postgres.api_url) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(ours)])
        seen = connection.execute(statement.encode()).fetchall()
        assert seen, "the probe must find the tenant's own rows, or it shows nothing"
        assert str(theirs) not in str(seen)
        connection.rollback()
        connection.execute("SELECT set_config('app.tenant_id', '', false)")
        left = connection.execute(statement.encode()).fetchall()
    assert str(ours) not in str(left)
    assert str(theirs) not in str(left)


async def test_the_probe_finds_other_tenants_once_the_policy_is_gone(
    api: Database, owner: Database, postgres: Services
) -> None:
    """The control: with row-level security off the same statement sees everybody."""
    theirs = await new_tenant(owner, "rls-control")
    id_ = await submit(api, theirs)
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        connection.execute("ALTER TABLE executions NO FORCE ROW LEVEL SECURITY")
        connection.execute("ALTER TABLE executions DISABLE ROW LEVEL SECURITY")
        connection.execute("SET LOCAL ROLE runner_api")
        seen = connection.execute("SELECT execution_id FROM executions").fetchall()
        connection.rollback()
    assert (id_,) in seen


async def test_rows_cannot_be_written_into_another_tenant(
    api: Database, owner: Database, postgres: Services
) -> None:
    """WITH CHECK makes an INSERT or UPDATE for another tenant fail."""
    ours, theirs = await new_tenant(owner, "rls-in"), await new_tenant(owner, "rls-out")
    id_ = await submit(api, theirs)
    with psycopg.connect(postgres.api_url, autocommit=True) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(ours)])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "INSERT INTO events (tenant_id, execution_id, seq, attempt, kind) "
                "VALUES (%s, %s, 99, 0, 'state')",
                [theirs, id_],
            )
        # A foreign key is no oracle: the other tenant's execution is as unknown as any.
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute(
                "INSERT INTO events (tenant_id, execution_id, seq, attempt, kind) "
                "VALUES (%s, %s, 99, 0, 'state')",
                [ours, id_],
            )


async def test_a_pooled_connection_carries_no_tenant_over(api: Database, owner: Database) -> None:
    """A, nobody and B use one connection in turn, also after an error in between."""
    a, b = await new_tenant(owner, "pool-a"), await new_tenant(owner, "pool-b")
    of_a, of_b = await submit(api, a), await submit(api, b)
    with pytest.raises(psycopg.errors.UniqueViolation):
        async with api.tenant(a) as tx:
            executions.insert_later(tx, of_a, REQUEST)
    async with api.no_tenant() as tx:
        assert await executions.get(tx, of_a) is None
        assert await executions.get(tx, of_b) is None
    async with api.tenant(b) as tx:
        assert await executions.get(tx, of_a) is None
        assert await executions.get(tx, of_b) is not None


async def test_a_connection_carries_no_tenant_over_after_a_cancellation(
    api: Database, owner: Database
) -> None:
    """The task is cancelled while it waits for PostgreSQL; B comes next."""
    a, b = await new_tenant(owner, "cancel-a"), await new_tenant(owner, "cancel-b")
    of_a = await submit(api, a)

    async def slow() -> None:
        async with api.tenant(a) as tx:
            await tx._execute("SELECT pg_sleep(30)", {})

    for _ in range(3):
        task = asyncio.create_task(slow())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with api.no_tenant() as tx:
            looked = await tx._execute("SELECT current_setting('app.tenant_id', true) AS t", {})
            row = await looked.fetchone()
            assert not row or not row["t"]
            assert await executions.get(tx, of_a) is None
        async with api.tenant(b) as tx:
            assert await executions.get(tx, of_a) is None


async def test_concurrent_transactions_of_one_pool_keep_apart(
    owner: Database, postgres: Services
) -> None:
    """Two hundred of ten tenants share three connections; each sees only its own execution."""
    async with Database(SecretStr(postgres.api_url), max_size=3) as pool:
        tenants = [await new_tenant(owner, f"crowd-{n}") for n in range(10)]
        ids = {tenant: await submit(pool, tenant) for tenant in tenants}

        async def look(tenant: UUID) -> set[UUID]:
            async with pool.tenant(tenant) as tx:
                await asyncio.sleep(0)
                found = await (await tx._execute("SELECT * FROM executions", {})).fetchall()
            return {row["execution_id"] for row in found}

        looks = [tenants[n % 10] for n in range(200)]
        seen = await asyncio.gather(*map(look, looks))
    assert seen == [{ids[tenant]} for tenant in looks]


async def test_a_copy_out_holds_the_tenants_own_rows(
    api: Database, owner: Database, postgres: Services
) -> None:
    """This is COPY of a query; PostgreSQL refuses COPY of such a table itself."""
    ours, theirs = await new_tenant(owner, "copy-ours"), await new_tenant(owner, "copy-theirs")
    mine, other = await submit(api, ours), await submit(api, theirs)
    with psycopg.connect(postgres.api_url) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(ours)])
        for source in ("executions", "(SELECT * FROM executions)"):
            columns = " (execution_id)" if source == "executions" else ""
            with connection.cursor().copy(f"COPY {source}{columns} TO STDOUT".encode()) as copy:
                text = b"".join(map(bytes, copy)).decode()
            assert str(mine) in text
            assert str(other) not in text


async def test_a_copy_in_cannot_name_another_tenant(
    api: Database, owner: Database, postgres: Services
) -> None:
    """PostgreSQL does not take COPY FROM into a table with policies."""
    ours = await new_tenant(owner, "copy-in")
    with psycopg.connect(postgres.api_url) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(ours)])
        with (
            pytest.raises(psycopg.errors.FeatureNotSupported),
            connection.cursor().copy(
                b"COPY events (tenant_id, execution_id, seq, attempt, kind) FROM STDIN"
            ) as copy,
        ):
            copy.write_row((ours, new_id(), 1, 0, "state"))


async def test_a_unique_constraint_tells_nothing_of_others(
    api: Database, owner: Database, postgres: Services
) -> None:
    """Equal ids and names in two tenants never collide, so no error reveals the other's."""
    ours, theirs = await new_tenant(owner, "unique-a"), await new_tenant(owner, "unique-b")
    id_ = await submit(api, theirs)
    async with api.tenant(ours) as tx:
        executions.insert_later(tx, id_, REQUEST)
        assert (await executions.get(tx, id_)) is not None
    keys = await unique_keys(postgres)
    without_tenant = {name for name, columns in keys.items() if "tenant_id" not in columns}
    # Random values of ours: 60 bits of a prefix, a version-7 UUID, hashes; and names that only the
    # operator gives. A port's sandbox is its own tenant's, whose id is such a UUID.
    assert without_tenant == {
        "api_keys_pkey",
        "api_keys_prefix_key",
        "identities_by_id",
        "invitations_hash_key",
        "public_templates_pkey",
        "sandbox_ports_found",
        "sessions_by_id",
        "sessions_hash_key",
        "tenants_name_key",
    }


async def unique_keys(postgres: Services) -> dict[str, list[str]]:
    """Return the columns of each unique index over a table with tenants."""
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        rows = connection.execute(
            "SELECT i.indexrelid::regclass::text, array_agg(a.attname::text) FROM pg_index i "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) "
            "JOIN pg_attribute t ON t.attrelid = i.indrelid AND t.attname = 'tenant_id' "
            "JOIN pg_class c ON c.oid = i.indrelid AND c.relkind = 'r' "
            "WHERE i.indisunique GROUP BY 1"
        ).fetchall()
    return dict(rows)


def test_every_view_and_function_keeps_the_callers_rights(postgres: Services) -> None:
    """Views are security invokers; what defines its own security is listed, fixed and bounded."""
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        views = connection.execute(
            "SELECT c.relname FROM pg_class c WHERE c.relkind IN ('v', 'm') "
            "AND c.relnamespace = 'public'::regnamespace "
            "AND NOT 'security_invoker=true' = ANY (COALESCE(c.reloptions, '{}'))"
        ).fetchall()
        definers = connection.execute(
            "SELECT p.proname, r.rolname, p.proconfig::text, "
            "has_function_privilege('public', p.oid, 'EXECUTE') "
            "FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner "
            "WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace"
        ).fetchall()
    assert views == []
    assert len(definers) >= 10
    for name, owner_, config, public in definers:
        wanted = "runner_eraser" if name == "erase_tenant" else "runner_definer"
        assert owner_ == wanted, name
        assert "search_path=pg_catalog, public, pg_temp" in config, name
        assert not public, name


async def test_each_process_may_do_its_own_part_only(postgres: Services) -> None:
    """The API cannot schedule, the worker cannot read keys, neither can change the schema."""
    refused = {
        postgres.api_url: [
            "SELECT claim_execution('n', 'i', '1 s')",
            "SELECT expired_leases(1)",
            "UPDATE executions SET attempt = 0",
            "UPDATE tenants SET max_concurrency = 99",
            "CREATE TABLE x ()",
        ],
        postgres.worker_url: [
            "SELECT * FROM api_keys",
            "SELECT find_api_key('x')",
            "DELETE FROM executions",
            "INSERT INTO tenants VALUES (gen_random_uuid(), 'x')",
            "CREATE TABLE x ()",
        ],
    }
    for url, statements in refused.items():
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
