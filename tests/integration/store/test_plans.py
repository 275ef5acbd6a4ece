"""Queries for each execution cost the same, however many executions there are."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from runner.audit.events import LIFE
from runner.embedded.services import Services, services
from runner.store import executions
from runner.store.db import Database
from runner.store.executions import ExecutionQuery
from runner.store.migrations import migrate
from runner.store.transaction import is_planned_anew, query
from runner.words.ids import new_id
from runner.words.states import State
from tests.support.deployment import state_folder

ENDED = "e.state NOT IN ('queued', 'starting', 'running')"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Services]:
    """Return this module's own services, without statistics about their tables."""
    with state_folder() as folder, services(folder, ephemeral=True) as running:
        migrate(SecretStr(running.owner_url))
        yield running


def plan(postgres: Services, statement: str) -> str:
    """Return the plan that PostgreSQL makes once for all values."""
    prepared = re.sub(r"%\(\w+\)s", "$1", statement)
    with psycopg.connect(postgres.api_url) as connection:
        rows = connection.execute(f"EXPLAIN (GENERIC_PLAN) {prepared}".encode()).fetchall()
    return "\n".join(row[0] for row in rows)


def test_an_execution_is_found_by_its_id(postgres: Services) -> None:
    """And not among all that have ended: so a plan did that was made while there were few.

    The control: asked for what has `ended_at`, PostgreSQL goes by the index of that.
    """
    statement = query("executions.output_of_ended")
    assert ENDED in statement
    assert "executions_ended" not in plan(postgres, statement)
    control = statement.replace(ENDED, "e.ended_at IS NOT NULL")
    assert "executions_ended" in plan(postgres, control)


MANY = "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"
FILL = """
SET session_replication_role = replica;  -- No triggers: rows, and nothing that follows from them.
INSERT INTO tenants (tenant_id, name, max_limits)
VALUES ('0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2', 'many', '{}');
INSERT INTO executions (tenant_id, execution_id, image, size, limits, egress, metadata,
                        on_worker_loss, argv, env, stdin, isolation, state, ended_at, result)
SELECT tenant_id, md5(n::text)::uuid, 'python', 'nano', '{}', '[]',
       jsonb_build_object('agent', 'a', 'run', n::text), 'fail', '{true}', '{}', '', 'container',
       CASE WHEN n % 5000 = 0 THEN 'failed' WHEN n % 4 = 1 THEN 'succeeded' ELSE 'queued' END,
       CASE WHEN n % 5000 = 0 OR n % 4 = 1 THEN now() END,
       CASE WHEN n % 5000 = 0 OR n % 4 = 1 THEN '{}'::jsonb END
FROM tenants, generate_series(1, 100000) n;
INSERT INTO labels SELECT tenant_id, execution_id, key, value
FROM executions, jsonb_each_text(metadata);
ANALYZE executions, labels;
"""


@pytest.fixture(scope="module")
def filled(postgres: Services) -> Services:
    """Return services with a tenant of very many executions, each with a label of its own."""
    with psycopg.connect(postgres.postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(FILL.encode())
    return postgres


def pages(services: Services, statement: str, *, mode: str, **wanted: Any) -> int:
    """Return how many pages of 8 KiB a statement reads, as the API's role and the tenant's."""
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
    ((plans,),) = rows(services, statement, mode=mode, how=explain, **wanted)
    plan = plans[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def rows(
    services: Services, statement: str, *, mode: str, how: str = "", **wanted: Any
) -> list[tuple[Any, ...]]:
    """Return what a statement, or an explanation of it, returns."""
    values = dict.fromkeys(re.findall(r"%\((\w+)\)", statement))
    values |= {name: value for name, value in {"limit": 51, **wanted}.items() if name in values}
    with psycopg.connect(services.api_url) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", [MANY])
        connection.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
        types = {
            "metadata": "jsonb", "before": "uuid", "limit": "bigint", "states": "text[]",
            "actions": "text[]", "resource_id": "text", "resource_type": "text",
        }  # fmt: skip
        names = list(values)
        prepared = statement
        for number, name in enumerate(names, 1):
            cast = types.get(name, "text" if name == "project" else "timestamptz")
            prepared = re.sub(rf"%\({name}\)s(::\S+?\b(\[\])?)?", f"${number}::{cast}", prepared)
        connection.execute(f"PREPARE asked AS {prepared}".encode())
        given = sql.SQL(", ").join(sql.Literal(values[name]) for name in names)
        asked = sql.SQL("{}EXECUTE asked ({})").format(sql.SQL(how), given)
        return connection.execute(asked).fetchall()


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(
    "labels",
    [{"agent": "a"}, {"run": "77"}, {"agent": "a", "run": "77"}, {"agent": "b"}, {"other": "x"}],
    ids=str,
)
def test_executions_are_found_by_a_label_among_many(
    filled: Services, labels: dict[str, str], mode: str
) -> None:
    """A label that all, one or none have needs few pages, with either plan."""
    statement = query("executions.list_labelled")
    assert pages(filled, statement, mode=mode, metadata=Jsonb(labels)) < 500


def test_without_rows_for_labels_all_would_be_read(filled: Services) -> None:
    """The control: the query uses only the column."""
    by_column = query("executions.list").replace(
        "\nORDER BY", "\n  AND metadata @> %(metadata)s::jsonb\nORDER BY"
    )
    read = pages(filled, by_column, mode="force_custom_plan", metadata=Jsonb({"agent": "b"}))
    assert read > 5_000


@pytest.mark.parametrize("states", [["failed"], ["timed_out"], ["failed", "timed_out"]], ids=str)
def test_executions_are_found_by_a_rare_state_among_many(
    filled: Services, states: list[str]
) -> None:
    """The control uses a plan that was made once for all values."""
    statement = query("executions.list")
    assert is_planned_anew(statement)
    assert pages(filled, statement, mode="force_custom_plan", states=states) < 500
    assert pages(filled, statement, mode="force_generic_plan", states=states) > 5_000


@pytest.mark.parametrize(
    ("states", "labels", "rarer"),
    [
        (["failed"], {"agent": "a"}, True),
        (["timed_out"], {"agent": "a"}, True),
        (["failed", "timed_out"], {"agent": "a"}, True),
        (["failed"], {"agent": "a", "run": "77"}, False),
        (["succeeded"], {"agent": "a"}, False),
        (["succeeded", "queued"], {"run": "77"}, False),
        (["failed"], {"other": "x"}, False),
    ],
    ids=str,
)
def test_the_rarer_of_states_and_labels_leads(
    filled: Services, states: list[str], labels: dict[str, str], rarer: bool
) -> None:
    """It takes few pages to find which is rarer, and few to read by it."""
    wanted: dict[str, Any] = {"states": states, "metadata": Jsonb(labels)}
    deciding = query("executions.states_are_rarer")
    assert is_planned_anew(deciding)
    assert rows(filled, deciding, mode="force_custom_plan", **wanted) == [(rarer,)]
    name = "executions.list_labelled_by_state" if rarer else "executions.list_labelled"
    assert pages(filled, deciding, mode="force_custom_plan", **wanted) < 1_500
    assert pages(filled, query(name), mode="force_custom_plan", **wanted) < 1_500


def test_led_by_its_label_a_rare_state_reads_all_that_have_the_label(filled: Services) -> None:
    """The control, with either plan: both lists hold the same, and one is found at once."""
    wanted: dict[str, Any] = {"states": ["failed"], "metadata": Jsonb({"agent": "a"})}
    names = ("executions.list_labelled", "executions.list_labelled_by_state")
    by_label, by_state = (
        rows(filled, query(name), mode="force_generic_plan", **wanted) for name in names
    )
    assert by_label == by_state
    assert len(by_state) == 20
    assert pages(filled, query(names[0]), mode="force_generic_plan", **wanted) > 100_000


async def test_what_has_optional_filters_is_planned_for_its_values(filled: Services) -> None:
    """This holds however often it runs. The control: a statement without filters is prepared."""
    async with Database(SecretStr(filled.api_url), max_size=1) as database:
        for _ in range(12):
            async with database.tenant(UUID(MANY)) as tx:
                await executions.get(tx, new_id())
                wanted = ExecutionQuery(limit=3, metadata={"agent": "a"}, states=[State.TIMED_OUT])
                found = await executions.list_newest(tx, wanted)
                assert found == []
        async with database.tenant(UUID(MANY)) as tx:
            connection = tx._connection
            cursor = await connection.execute(b"SELECT statement FROM pg_prepared_statements")
            prepared = [row["statement"] for row in await cursor.fetchall()]
    assert not [each for each in prepared if "IS NULL OR" in each]
    assert [each for each in prepared if "FROM executions WHERE execution_id" in each]


RECORDS = """
SET session_replication_role = replica;
INSERT INTO audit_events (tenant_id, seq, body, previous_hash, hash)
SELECT '0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2', n,
       jsonb_build_object('id', n, 'at', '', 'actor', 'key', 'outcome', 'success',
                          'action', CASE n WHEN 1 THEN 'sandbox:start' ELSE 'process:start' END,
                          'resource_type', 'sandbox', 'resource_id', 'busy')::text, '', ''
FROM generate_series(1, 50000) n;
ANALYZE audit_events;
"""


@pytest.fixture(scope="module")
def busy(postgres: Services) -> Services:
    """Return services with a sandbox in which very much was done."""
    with psycopg.connect(postgres.postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(RECORDS.encode())
    return postgres


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_a_sandboxs_life_is_found_among_all_that_was_done_in_it(busy: Services, mode: str) -> None:
    """The control names the actions by a value: a plan for all values knows no index for them."""
    statement = query("audit.newest_of_life")
    wanted: dict[str, Any] = {"resource_id": "busy", "resource_type": "sandbox"}
    assert len(rows(busy, statement, mode=mode, **wanted)) == 1
    assert pages(busy, statement, mode=mode, **wanted) < 50
    control = query("audit.newest_of_resource")
    wanted["actions"] = sorted(LIFE)
    assert pages(busy, control, mode="force_generic_plan", **wanted) > 1_000


def test_the_index_of_lives_has_the_actions_that_are_asked_for() -> None:
    asked = re.findall(r"'(sandbox:\w+)'", query("audit.newest_of_life"))
    assert asked == sorted(LIFE)
