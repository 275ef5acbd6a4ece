"""What is asked for every execution costs the same however many there have been."""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from runner.embedded.services import Services, services
from runner.store.migrations import migrate
from runner.store.transaction import query
from tests.support.deployment import state_folder

ENDED = "e.state NOT IN ('queued', 'starting', 'running')"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Services]:
    """Return services of this module's own, whose tables PostgreSQL knows nothing of yet."""
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
                        on_worker_loss, argv, env, stdin, isolation)
SELECT tenant_id, gen_random_uuid(), 'python', 'nano', '{}', '[]',
       jsonb_build_object('agent', 'a', 'run', n::text), 'fail', '{true}', '{}', '', 'container'
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
    values = dict.fromkeys(re.findall(r"%\((\w+)\)", statement)) | {"limit": 51} | wanted
    with psycopg.connect(services.api_url) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", [MANY])
        connection.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
        types = {"metadata": "jsonb", "before": "uuid", "limit": "bigint", "states": "text[]"}
        names = list(values)
        prepared = statement
        for number, name in enumerate(names, 1):
            cast = types.get(name, "text" if name == "project" else "timestamptz")
            prepared = re.sub(rf"%\({name}\)s(::\S+?\b(\[\])?)?", f"${number}::{cast}", prepared)
        connection.execute(f"PREPARE asked AS {prepared}".encode())
        given = sql.SQL(", ").join(sql.Literal(values[name]) for name in names)
        explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE asked ({})")
        row = connection.execute(explain.format(given)).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(
    "labels",
    [{"agent": "a"}, {"run": "77"}, {"agent": "a", "run": "77"}, {"agent": "b"}, {"other": "x"}],
    ids=str,
)
def test_executions_are_found_by_a_label_among_many(
    filled: Services, labels: dict[str, str], mode: str
) -> None:
    """Few pages for a label that all have, one has or none has, whichever plan is made."""
    statement = query("executions.list_labelled")
    assert pages(filled, statement, mode=mode, metadata=Jsonb(labels)) < 500


def test_without_rows_for_labels_all_would_be_read(filled: Services) -> None:
    """The control: by the column alone."""
    by_column = query("executions.list").replace(
        "\nORDER BY", "\n  AND metadata @> %(metadata)s::jsonb\nORDER BY"
    )
    read = pages(filled, by_column, mode="force_custom_plan", metadata=Jsonb({"agent": "b"}))
    assert read > 5_000
