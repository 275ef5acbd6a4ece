"""A login's rights bound hand-written SQL, too, if its process is taken over."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from runner.embedded.services import Services
from runner.store.db import Database
from runner.words.ids import PLATFORM_TENANT, new_id
from tests.integration.store.conftest import new_tenant

Superuser = psycopg.Connection[dict[str, Any]]
Connection = psycopg.Connection[tuple[Any, ...]]
OLD_HASH = "$argon2id$old"
NEW_HASH = "$argon2id$new"


def name_tenant(connection: Connection, tenant: UUID) -> None:
    """Let a connection act in a tenant like the process with this login."""
    connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])


@pytest.fixture
def operator(postgres: Services) -> Iterator[Connection]:
    """Return a connection with the operator's login."""
    with psycopg.connect(postgres.operator_url, autocommit=True) as connection:
        yield connection


def tables(postgres: Services) -> list[str]:
    """Return all tables."""
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        found = connection.execute(
            "SELECT c.relname FROM pg_class c "
            "WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
        ).fetchall()
    return [name for (name,) in found]


def records(postgres: Services, tenant: UUID) -> int:
    """Return how many records a tenant's log has."""
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        found = connection.execute(
            "SELECT count(*) FROM audit_events WHERE tenant_id = %s", [tenant]
        ).fetchone()
    assert found is not None
    return int(found[0])


async def test_the_operators_login_deletes_no_single_row(
    owner: Database, postgres: Services, operator: Connection
) -> None:
    """But it takes back what it has made everybody's."""
    name_tenant(operator, await new_tenant(owner, "logins-rows"))
    for table in set(tables(postgres)) - {"public_templates"}:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            operator.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))


async def test_the_operators_login_erases_a_whole_tenant_that_is_suspended(
    owner: Database, postgres: Services, operator: Connection
) -> None:
    """It erases the log, too, and no other tenant's row."""
    ours, other = await new_tenant(owner, "logins-ours"), await new_tenant(owner, "logins-other")
    name_tenant(operator, ours)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        operator.execute("SELECT * FROM erase_tenant()")
    assert records(postgres, ours) > 0
    operator.execute("UPDATE tenants SET suspended_at = now(), suspended_why = 'test'")
    erased: dict[str, int] = dict(operator.execute("SELECT * FROM erase_tenant()").fetchall())
    assert erased["tenants"] == erased["api_keys"] == 1
    assert records(postgres, ours) == 0
    assert records(postgres, other) > 0


def test_the_platforms_own_log_is_no_tenants(postgres: Services, operator: Connection) -> None:
    """It belongs to no tenant, not even one that the operator's login invents."""
    name_tenant(operator, PLATFORM_TENANT)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        operator.execute("SELECT * FROM erase_tenant()")
    with pytest.raises(psycopg.errors.CheckViolation):
        operator.execute(
            "INSERT INTO tenants (tenant_id, name, max_limits) VALUES (%s, 'platform', '{}')",
            [PLATFORM_TENANT],
        )


async def test_a_person_is_changed_in_a_tenant_of_theirs_alone(
    owner: Database, postgres: Services
) -> None:
    """In another tenant, and without one, the functions find nobody. Their own is the control."""
    ours, theirs = await new_tenant(owner, "logins-a"), await new_tenant(owner, "logins-b")
    user = new_id()
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        connection.execute(
            "INSERT INTO users (user_id, email, password) VALUES (%s, 'logins@example.com', %s)",
            [user, OLD_HASH],
        )
        connection.execute(
            "INSERT INTO memberships (tenant_id, user_id, role, created_by) "
            "VALUES (%s, %s, 'owner', 'test')",
            [theirs, user],
        )
        connection.execute(
            "INSERT INTO sessions (tenant_id, session_id, user_id, hash, expires_at) "
            "VALUES (%s, %s, %s, sha256('logins'), now() + interval '1 hour')",
            [theirs, new_id(), user],
        )
        connection.execute(
            "INSERT INTO invitations (tenant_id, invitation_id, email, role, hash, created_by, "
            "expires_at) VALUES (%s, %s, 'new@example.com', 'viewer', sha256('new'), 'test', "
            "now() + interval '1 hour')",
            [theirs, new_id()],
        )
    probes: list[tuple[str, list[object]]] = [
        ("SELECT count(*) FROM password_of(%s)", [user]),
        ("SELECT count(*) FROM memberships_of(%s)", [user]),
        ("SELECT count(*) FROM sessions_of(%s, '1 hour')", [user]),
        ("SELECT hold_password(%s, %s)::integer", [user, OLD_HASH]),
        ("SELECT replace_password(%s, %s, %s)::integer", [user, OLD_HASH, NEW_HASH]),
        ("SELECT end_sessions(%s, NULL)", [user]),
        ("SELECT add_user(%s, 'new@example.com', %s)::integer", [new_id(), NEW_HASH]),
    ]

    def found(connection: Connection) -> list[object]:
        rows = [connection.execute(text.encode(), values).fetchone() for text, values in probes]
        return [row and row[0] for row in rows]

    with psycopg.connect(postgres.api_url, autocommit=True) as api:
        assert found(api) == [0] * len(probes)
        name_tenant(api, ours)
        assert found(api) == [0] * len(probes)
        name_tenant(api, theirs)
        assert found(api) == [1] * len(probes)


def test_no_login_can_hold_up_claims(postgres: Services, superuser: Superuser) -> None:
    """Claims lock a table that no login may lock; an advisory lock delays nobody."""
    for url in (postgres.api_url, postgres.worker_url, postgres.operator_url):
        with psycopg.connect(url) as other, psycopg.connect(postgres.worker_url) as worker:
            other.execute("SELECT pg_advisory_xact_lock(hashtextextended('runner.claim', 0))")
            worker.execute("SET LOCAL statement_timeout = '2s'")
            worker.execute("SELECT * FROM claim_execution('node', 'instance', '1 minute')")
            worker.rollback()
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute("LOCK TABLE claim_turn IN ACCESS SHARE MODE")


async def test_no_other_login_can_hold_up_submissions(postgres: Services, owner: Database) -> None:
    """Only the API may take a tenant's turn or lock its row."""
    tenant = await new_tenant(owner, "turn")
    for url in (postgres.worker_url, postgres.operator_url):
        with psycopg.connect(url) as other, psycopg.connect(postgres.api_url) as api:
            name_tenant(other, tenant)
            other.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('runner.submit:' || %s, 0))",
                [str(tenant)],
            )
            name_tenant(api, tenant)
            api.execute("SET LOCAL statement_timeout = '2s'")
            api.execute("SELECT take_submission_turn()")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute("SELECT take_submission_turn()")
    with psycopg.connect(postgres.worker_url) as worker:
        name_tenant(worker, tenant)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute("SELECT FROM tenants FOR KEY SHARE")


async def test_one_submission_holds_up_another_of_its_tenant_alone(
    postgres: Services, owner: Database
) -> None:
    """The control: there is one turn, as long as the transaction lasts."""
    ours, theirs = await new_tenant(owner, "turn-ours"), await new_tenant(owner, "turn-theirs")
    with psycopg.connect(postgres.api_url) as first, psycopg.connect(postgres.api_url) as second:
        name_tenant(first, ours)
        first.execute("SELECT take_submission_turn()")
        name_tenant(second, theirs)
        second.execute("SET LOCAL statement_timeout = '2s'")
        second.execute("SELECT take_submission_turn()")
        second.rollback()
        name_tenant(second, ours)
        second.execute("SET LOCAL statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            second.execute("SELECT take_submission_turn()")


def test_one_claim_holds_up_another(postgres: Services) -> None:
    """The control: claims do run one after another."""
    with (
        psycopg.connect(postgres.worker_url) as first,
        psycopg.connect(postgres.worker_url) as second,
    ):
        first.execute("SELECT * FROM claim_execution('node', 'instance', '1 minute')")
        second.execute("SET LOCAL statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            second.execute("SELECT * FROM claim_execution('node', 'instance', '1 minute')")
        first.rollback()
