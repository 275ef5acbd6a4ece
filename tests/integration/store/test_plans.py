"""What is asked for every execution costs the same however many there have been."""

import re
from collections.abc import Iterator

import psycopg
import pytest
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
