"""What `migrate` would do to a database, told without doing any of it.

The tables that a revision locks are read from its SQL. Row-level locks and locks that hinder nobody
are left out: what matters to an operator is whom the migration makes wait, and for which table.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path

import psycopg
from pydantic import SecretStr

from runner.store.migrations import connected
from runner.words.errors import SetupError, StoreUnavailable


class LockedOut(StrEnum):
    """Whom a lock on a table makes wait (PostgreSQL's manual, Explicit Locking)."""

    EVERYBODY = "everybody"
    """ACCESS EXCLUSIVE: readers, too."""
    WRITERS = "writers"
    """SHARE or SHARE ROW EXCLUSIVE: whoever changes the table."""


@dataclass(frozen=True, slots=True)
class PlannedRevision:
    """One revision that would run."""

    revision: str
    does: str
    locks: Mapping[str, LockedOut]
    """Tables that exist now, and who waits for them until all revisions are applied."""
    writes: tuple[str, ...]
    """Tables that exist now, of which it changes rows."""
    reversible: bool
    """Whether the revision can be taken back without a backup."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a database stands, and the revisions that would bring it up to date, in order."""

    now: str | None
    """The last revision that was applied; None if the database is empty."""
    head: str
    """The last revision of this release."""
    revisions: tuple[PlannedRevision, ...]


_NOT_RUN = re.compile(
    r"--[^\n]*|'(?:[^']|'')*'"
    r"|\bCREATE\s+(?:OR\s+REPLACE\s+)?FUNCTION\b.*?(?:\$\$.*?\$\$|\bBEGIN\s+ATOMIC\b.*?\bEND)\s*;",
    re.DOTALL,
)
"""Comments, texts and the bodies of functions: naming a table there locks nothing."""
_FIRST = r"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(?:ONLY\s+)?"
_LOCKING = {
    LockedOut.EVERYBODY: (
        rf"\bALTER\s+TABLE\s+{_FIRST}(\w+)",
        rf"\bDROP\s+TABLE\s+{_FIRST}(\w+)",
        rf"\b(?:CREATE|ALTER|DROP)\s+POLICY\s+{_FIRST}\w+\s+ON\s+(\w+)",
        rf"\bDROP\s+TRIGGER\s+{_FIRST}\w+\s+ON\s+(\w+)",
    ),
    LockedOut.WRITERS: (
        rf"\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+{_FIRST}\w+\s+ON\s+(\w+)",
        r"\bCREATE\s+(?:CONSTRAINT\s+)?TRIGGER\s[^;]*?\sON\s+(\w+)",
        r"\bREFERENCES\s+(\w+)",
    ),
}
_WRITING = (r"\bINSERT\s+INTO\s+(\w+)", r"\bUPDATE\s+(\w+)(?:\s+\w+)?\s+SET\b",
            r"\bDELETE\s+FROM\s+(\w+)")  # fmt: skip
_INDEX_MADE = re.compile(rf"\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+{_FIRST}(\w+)\s+ON\s+(\w+)")
_INDEX_DROPPED = re.compile(rf"\bDROP\s+INDEX\s+{_FIRST}(\w+)")
_TABLES = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
)


def plan(owner_url: SecretStr) -> Plan:
    """Return what `migrate` would do to this database.

    Raises StoreUnavailable if PostgreSQL does not answer, and SetupError if the database is newer
    than this release or does not store text as UTF-8.
    """
    now, tables = _standing(owner_url)
    # Import it here: it takes a third of a second, and most commands migrate nothing.
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(resources.files(__package__)))
    scripts = ScriptDirectory.from_config(config)
    known = list(scripts.walk_revisions())
    if now is not None and now not in {each.revision for each in known}:
        raise SetupError(
            f"the database is at revision {now}, which this release does not know: a newer "
            "release has migrated it, and only that one or a newer one can use it"
        )
    newer: list[PlannedRevision] = []
    for script in known:
        if script.revision == now:
            break
        locks, writes = effects(_sql(script.module.__file__ or ""))
        newer.append(
            PlannedRevision(
                script.revision,
                script.doc,
                {name: whom for name, whom in sorted(locks.items()) if name in tables},
                tuple(sorted(writes & tables)),
                hasattr(script.module, "downgrade"),
            )
        )
    return Plan(now, known[0].revision, tuple(reversed(newer)))


def effects(text: str) -> tuple[dict[str, LockedOut], set[str]]:
    """Return which tables the SQL of a migration locks, and in which it changes rows."""
    run = _NOT_RUN.sub(" ", text)
    locks: dict[str, LockedOut] = {}
    for whom in (LockedOut.WRITERS, LockedOut.EVERYBODY):
        locks |= {name: whom for each in _LOCKING[whom] for name in re.findall(each, run)}
    of_index = dict(_indexes())
    for index in _INDEX_DROPPED.findall(run):
        locks[of_index.get(index, index)] = LockedOut.EVERYBODY
    return locks, {name for each in _WRITING for name in re.findall(each, run)}


def _standing(owner_url: SecretStr) -> tuple[str | None, frozenset[str]]:
    """Return the database's revision, and the tables that exist."""
    try:
        with connected(owner_url) as connection:
            tables = frozenset(str(name) for (name,) in connection.execute(_TABLES))
            if "alembic_version" not in tables:
                return None, tables
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return (str(row[0]) if row else None), tables
    except psycopg.OperationalError as error:
        why = " ".join(str(error).split())
        raise StoreUnavailable(f"PostgreSQL cannot be reached: {why}") from error


def _indexes() -> Iterator[tuple[str, str]]:
    """Yield each index that a migration made, with its table."""
    for file in resources.files(__package__).joinpath("versions").iterdir():
        if file.name.endswith(".sql"):
            yield from _INDEX_MADE.findall(_NOT_RUN.sub(" ", file.read_text("utf-8")))


def _sql(module: str) -> str:
    """Return the SQL beside a revision's module."""
    return Path(module).with_suffix(".sql").read_text("utf-8")
