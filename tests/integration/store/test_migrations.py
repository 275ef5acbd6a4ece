"""Databases that were migrated by an earlier text of a migration come to the same schema."""

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from runner.embedded.services import Services
from runner.store import migrations
from runner.store.migrations import migrate
from runner.words.errors import SetupError

VERSIONS = Path(migrations.__file__).parent / "versions"
DATA = Path(__file__).resolve().parents[2] / "data"
EDITS = tomllib.loads((DATA / "edited_migrations.toml").read_text())["edit"]
EDITED = sorted({edit["file"] for edit in EDITS})

Made: TypeAlias = Callable[[], str]


@pytest.fixture
def empty(postgres: Services, superuser: psycopg.Connection[dict[str, object]]) -> Iterator[Made]:
    """Return what makes an empty database of the owner's and returns its URL."""
    names: list[str] = []

    def make() -> str:
        names.append(f"history_{len(names)}")
        superuser.execute(
            sql.SQL("CREATE DATABASE {} OWNER runner_owner").format(sql.Identifier(names[-1]))
        )
        return postgres.postgres.url("runner_owner", names[-1])

    yield make
    for name in names:
        superuser.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def earlier(file: str) -> str:
    """Return the text of a migration before it was edited."""
    text = (VERSIONS / file).read_text()
    for edit in EDITS:
        if edit["file"] == file:
            before, added, after = text.partition(edit["added"])
            assert added, f"{file} does not hold what its edit added"
            text = before + after
    return text


def apply(url: str, files: list[str], *, old: list[str]) -> None:
    """Apply migrations, some of them by their earlier text, and stamp the last one's number."""
    with psycopg.connect(url) as connection:
        for file in files:
            text = earlier(file) if file in old else (VERSIONS / file).read_text()
            connection.execute(text.encode())
        connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES (%s)", [files[-1][:4]])


def until(last: str) -> list[str]:
    """Return the files of all migrations up to a number, in order."""
    return [path.name for path in sorted(VERSIONS.glob("*.sql")) if path.name[:4] <= last]


def catalogue(url: str) -> list[str]:
    """Return everything that migrations made in a database but Alembic's own table."""
    with psycopg.connect(url) as connection:
        lines = connection.execute((DATA / "catalogue.sql").read_bytes()).fetchall()
    return [line for (line,) in lines if "alembic_version" not in line]


@pytest.fixture
def fresh(empty: Made) -> list[str]:
    """Return the catalogue of a database that today's migrations made."""
    url = empty()
    migrate(SecretStr(url))
    return catalogue(url)


@pytest.mark.parametrize("file", EDITED)
def test_a_database_of_before_an_edit_comes_to_todays_schema(
    empty: Made, fresh: list[str], file: str
) -> None:
    url = empty()
    apply(url, until(file[:4]), old=[file])
    migrate(SecretStr(url))
    assert catalogue(url) == fresh


def test_a_database_of_before_every_edit_was_thought_up_to_date_and_comes_to_todays_schema(
    empty: Made, fresh: list[str]
) -> None:
    url = empty()
    apply(url, until("0012"), old=EDITED)
    lacking = "\n".join(set(fresh) - set(catalogue(url)))
    assert all(name in lacking for name in ("hold_password", "waiting_everywhere"))
    migrate(SecretStr(url))
    assert catalogue(url) == fresh


@pytest.mark.parametrize("last", ["0008", "0009", "0010"])
def test_a_database_of_a_branch_that_never_landed_is_refused(empty: Made, last: str) -> None:
    url = empty()
    apply(url, [*until("0006"), next(VERSIONS.glob(f"{last}_*.sql")).name], old=[])
    with pytest.raises(SetupError, match="development branch"):
        migrate(SecretStr(url))
