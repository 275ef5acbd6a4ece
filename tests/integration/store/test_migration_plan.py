"""The plan of a migration tells what the migration does, and does nothing."""

import json
import os
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from runner.store.migrations import migrate
from runner.store.migrations.plan import LockedOut, effects, plan
from runner.words.errors import SetupError
from tests.integration.store.test_migrations import VERSIONS, Made, apply, catalogue, empty, until

__all__ = ["empty"]
WAITING = {"AccessExclusiveLock": LockedOut.EVERYBODY} | dict.fromkeys(
    ("ExclusiveLock", "ShareRowExclusiveLock", "ShareLock"), LockedOut.WRITERS
)
HELD = """
    SELECT relation, mode FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation'"""
TABLES = """
    SELECT oid, relname FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""


def taken(connection: psycopg.Connection[Any], text: str) -> tuple[dict[str, LockedOut], set[str]]:
    """Apply a migration; return whom its locks make wait, and the tables that it may write to."""
    before = dict(connection.execute(TABLES).fetchall())
    with connection.transaction():
        connection.execute(text.encode())
        held = [(before[oid], mode) for oid, mode in connection.execute(HELD) if oid in before]
    locks: dict[str, LockedOut] = {}
    for name, mode in sorted(held, key=lambda each: WAITING.get(each[1]) is LockedOut.EVERYBODY):
        if mode in WAITING:
            locks[name] = WAITING[mode]
    return locks, {name for name, mode in held if mode == "RowExclusiveLock"}


def test_every_migration_locks_the_tables_that_its_text_is_read_to_lock(empty: Made) -> None:
    """PostgreSQL says which locks a transaction holds; the plan only reads the text."""
    with psycopg.connect(empty(), autocommit=True) as connection:
        for path in sorted(VERSIONS.glob("*.sql")):
            text = path.read_text()
            tables = {name for _, name in connection.execute(TABLES)}
            locks, writes = effects(text)
            held, written = taken(connection, text)
            read = {name: whom for name, whom in locks.items() if name in tables}
            assert (path.name, read) == (path.name, held)
            # Only that: making a function takes this lock of the tables that its body writes to.
            assert writes & tables <= written


@pytest.mark.parametrize(
    ("text", "locks", "writes"),
    [
        ("ALTER TABLE keys ADD COLUMN a int", {"keys": LockedOut.EVERYBODY}, set()),
        ("CREATE INDEX of_keys ON keys (a)", {"keys": LockedOut.WRITERS}, set()),
        (
            "CREATE INDEX i ON keys (a); ALTER TABLE keys DROP COLUMN a",
            {"keys": LockedOut.EVERYBODY},
            set(),
        ),
        ("DROP INDEX queues_turn", {"queues": LockedOut.EVERYBODY}, set()),
        ("UPDATE keys k SET a = 1", {}, {"keys"}),
        ("-- ALTER TABLE keys\nCOMMENT ON TABLE keys IS 'DROP TABLE keys'", {}, set()),
        ("CREATE FUNCTION f() RETURNS void AS $$ UPDATE keys SET a = 1 $$;", {}, set()),
    ],
)
def test_a_text_locks_what_its_statements_lock(
    text: str, locks: dict[str, LockedOut], writes: set[str]
) -> None:
    """What a comment, a text or a function's body names is not locked."""
    assert effects(text) == (locks, writes)


def told(url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `runner migrate` with these arguments."""
    return subprocess.run(
        [sys.executable, "-m", "runner", "migrate", *arguments],
        env={**os.environ, "COLUMNS": "120", "RUNNER_DATABASE_OWNER_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_plan_lists_the_revisions_that_would_run_and_changes_nothing(empty: Made) -> None:
    """They are in order, without those that were applied; with only the tables that exist."""
    url = empty()
    apply(url, until("0021"), old=[])
    before = catalogue(url)
    found = json.loads(told(url, "--plan", "--json").stdout)
    assert catalogue(url) == before
    assert found["now"] == "0021"
    first, *_, last = found["revisions"]
    assert (first["revision"], last["revision"]) == ("0022", found["head"])
    assert first["locks"] == {"executions": "everybody"}
    assert first["writes"] == []
    assert first["does"]
    assert not first["reversible"]
    listed = told(url, "--plan")
    assert listed.returncode == 0
    assert first["does"] in listed.stdout
    assert "restore a backup" in listed.stderr.replace("\n", " ")


def test_a_database_that_is_up_to_date_has_nothing_planned(empty: Made) -> None:
    url = empty()
    assert plan(SecretStr(url)).now is None
    migrate(SecretStr(url))
    found = plan(SecretStr(url))
    assert (found.now, found.revisions) == (found.head, ())
    assert "nothing to do" in told(url, "--plan").stderr


def test_a_database_of_a_newer_release_is_refused(empty: Made) -> None:
    url = empty()
    apply(url, until("0001"), old=[])
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SetupError, match="9999, which this release does not know"):
        plan(SecretStr(url))


def test_json_without_a_plan_is_refused_before_anything_is_done(empty: Made) -> None:
    url = empty()
    before = catalogue(url)
    refused = told(url, "--json")
    assert (refused.returncode, refused.stdout) == (78, "")
    assert "--plan" in refused.stderr
    assert catalogue(url) == before
