"""The database keeps tenants apart, whatever a query forgets."""

from typing import Any
from uuid import UUID

import psycopg
import pytest

from runner.embedded.services import Services
from runner.ids import new_id
from runner.models import ExecutionRequest, Program
from runner.store import executions
from runner.store.db import Database
from tests.integration.store.conftest import LIMITS, new_tenant

REQUEST = ExecutionRequest(
    program=Program(argv=("true",), env={}), limits=LIMITS, size="nano", image="python"
)
ROLES = ("runner_api", "runner_worker", "runner_operator", "runner_definer")


async def submit(api: Database, tenant: UUID) -> UUID:
    """Store an execution of a tenant."""
    id_ = new_id()
    async with api.tenant(tenant) as tx:
        await executions.insert(tx, id_, REQUEST)
    return id_


def test_every_table_forces_it_for_every_command(
    postgres: Services, superuser: "psycopg.Connection[dict[str, Any]]"
) -> None:
    """Each table with a tenant: ENABLE, FORCE, and a policy with USING and WITH CHECK."""
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        tables = connection.execute(
            "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, r.rolname, "
            "  (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid AND p.polcmd = '*' "
            "   AND p.polqual IS NOT NULL AND p.polwithcheck IS NOT NULL AND p.polroles = '{0}') "
            "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' "
            "JOIN pg_roles r ON r.oid = c.relowner WHERE c.relkind = 'r'"
        ).fetchall()
    assert len(tables) == 14
    for name, enabled, forced, owner, policies in tables:
        assert (enabled, forced, owner, policies) == (True, True, "runner_owner", 1), name


def test_no_role_may_look_past_it(superuser: "psycopg.Connection[dict[str, Any]]") -> None:
    """None is superuser, bypasses policies, makes roles or owns a table."""
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
        "SELECT queue_position(execution_id) FROM executions",
    ],
)
async def test_hand_written_sql_gets_nothing_of_another_tenant(
    statement: str, api: Database, owner: Database, postgres: Services
) -> None:
    """No WHERE, joins, RETURNING, functions: only the tenant's own rows; without one, none."""
    ours, theirs = await new_tenant(owner, "rls-ours"), await new_tenant(owner, "rls-theirs")
    await submit(api, ours)
    await submit(api, theirs)
    with psycopg.connect(postgres.api_url) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(ours)])
        seen = connection.execute(statement.encode()).fetchall()
        assert seen, "the probe must find the tenant's own rows, or it shows nothing"
        assert str(theirs) not in str(seen)
        connection.execute("SELECT set_config('app.tenant_id', '', false)")
        assert connection.execute(statement.encode()).fetchall() == []


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
    """WITH CHECK: an INSERT or UPDATE that names somebody else fails."""
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
    """One connection, used by A, then by nobody, then by B; also after an error in between."""
    a, b = await new_tenant(owner, "pool-a"), await new_tenant(owner, "pool-b")
    of_a, of_b = await submit(api, a), await submit(api, b)
    with pytest.raises(psycopg.errors.UniqueViolation):
        async with api.tenant(a) as tx:
            await executions.insert(tx, of_a, REQUEST)
    async with api.no_tenant() as tx:
        assert await executions.get(tx, of_a) is None
        assert await executions.get(tx, of_b) is None
    async with api.tenant(b) as tx:
        assert await executions.get(tx, of_a) is None
        assert await executions.get(tx, of_b) is not None


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
