"""Databases that an earlier text of a migration made get the same schema."""

import multiprocessing
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from runner.embedded.services import Services
from runner.store import migrations
from runner.store.migrations import migrate
from runner.words.errors import SetupError, StoreUnavailable
from runner.words.ids import new_id

SCHEMA = Path(migrations.__file__).parents[1] / "schema.sql"
VERSIONS = Path(migrations.__file__).parent / "versions"
DATA = Path(__file__).resolve().parents[2] / "data"
EDITS = tomllib.loads((DATA / "edited_migrations.toml").read_text())["edit"]
EDITED = sorted({edit["file"] for edit in EDITS})

Made: TypeAlias = Callable[[], str]


@contextmanager
def making(postgres: Services) -> Iterator[Made]:
    """Yield a function that makes an empty database and returns its URL; all are dropped."""
    names: list[str] = []
    with psycopg.connect(postgres.postgres.url("postgres"), autocommit=True) as superuser:

        def make() -> str:
            names.append(f"history_{new_id().hex}")
            superuser.execute(
                sql.SQL("CREATE DATABASE {} OWNER runner_owner").format(sql.Identifier(names[-1]))
            )
            return postgres.postgres.url("runner_owner", names[-1])

        try:
            yield make
        finally:
            for name in names:
                superuser.execute(
                    sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
                )


@pytest.fixture
def empty(postgres: Services) -> Iterator[Made]:
    """Return a function that makes an empty database of the owner and returns its URL."""
    with making(postgres) as make:
        yield make


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
    """Apply migrations, some with their earlier text, and stamp the last one's number."""
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
    """Return everything that migrations made in a database, except Alembic's own table."""
    with psycopg.connect(url) as connection:
        lines = connection.execute((DATA / "catalogue.sql").read_bytes()).fetchall()
    return [line for (line,) in lines if "alembic_version" not in line]


@pytest.fixture(scope="module")
def fresh(postgres: Services) -> list[str]:
    """Return the catalogue of a database that today's migrations made."""
    with making(postgres) as make:
        url = make()
        migrate(SecretStr(url))
        return catalogue(url)


def made_by(url: str, schema: str) -> list[str]:
    """Return the catalogue of an empty database in which `schema` is run."""
    with psycopg.connect(url) as connection:
        connection.execute(schema.encode())
    return catalogue(url)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_store_every_text_is_refused(
    postgres: Services, empty: Made, encoding: str
) -> None:
    """A server whose locale is C makes such databases unless it is told otherwise."""
    url = empty()
    name = str(conninfo_to_dict(url)["dbname"])
    with psycopg.connect(postgres.postgres.url("postgres"), autocommit=True) as superuser:
        superuser.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
        superuser.execute(
            sql.SQL(
                "CREATE DATABASE {} OWNER runner_owner TEMPLATE template0 ENCODING {} LOCALE 'C'"
            ).format(sql.Identifier(name), sql.Literal(encoding))
        )
    with pytest.raises(SetupError, match=f"{name} stores text as {encoding}, not as UTF8"):
        migrate(SecretStr(url))


def test_the_schema_to_read_is_what_the_migrations_add_up_to(empty: Made, fresh: list[str]) -> None:
    assert made_by(empty(), SCHEMA.read_text()) == fresh


@pytest.mark.parametrize(
    ("written", "other"),
    [
        ("queued               integer NOT NULL", "queued               integer"),
        ("GRANT UPDATE ON claim_turn TO", "GRANT SELECT, UPDATE ON claim_turn TO"),
        ("FOR SELECT TO runner_operator USING (true)", "FOR SELECT TO runner_api USING (true)"),
    ],
)
def test_a_schema_that_differs_is_found(
    empty: Made, fresh: list[str], written: str, other: str
) -> None:
    text = SCHEMA.read_text()
    assert written in text
    assert made_by(empty(), text.replace(written, other)) != fresh


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


class Held:
    """A database without the last migration; a transaction holds the lock that it needs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._long = psycopg.connect(url)
        self.write(self._long)

    @staticmethod
    def write(connection: psycopg.Connection) -> None:
        """Take the lock that every write takes."""
        connection.execute("LOCK TABLE api_keys IN ROW EXCLUSIVE MODE")

    def end(self) -> None:
        """End the transaction."""
        self._long.close()

    def version(self) -> str:
        """Return the number of the last migration."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        assert row is not None
        return str(row[0])


@pytest.fixture
def held(empty: Made, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Return such a database, for migrations that wait briefly and try twice."""
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", timedelta(milliseconds=200))
    monkeypatch.setattr(migrations, "LOCK_PAUSES_S", (1.0,))
    url = empty()
    apply(url, until("0018"), old=[])
    made = Held(url)
    yield made
    made.end()


def test_a_migration_that_gets_no_lock_lets_others_go_first_and_says_what_to_do(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is changed."""
    served: list[float] = []

    def others(pause_s: float) -> None:
        with psycopg.connect(held.url, options="-c lock_timeout=5s") as connection:
            held.write(connection)
        served.append(pause_s)

    monkeypatch.setattr("runner.store.migrations.time.sleep", others)
    with pytest.raises(StoreUnavailable, match=r"in 2 tries.*pg_terminate_backend"):
        migrate(SecretStr(held.url))
    assert (served, held.version()) == ([1.0], "0018")


@pytest.mark.parametrize("made", [False, True])
def test_migrations_at_once_run_one_after_the_other(
    empty: Made, fresh: list[str], *, made: bool
) -> None:
    """This includes an empty database, which has nothing to lock yet."""
    url = empty()
    if made:
        apply(url, until("0018"), old=[])
    # Alembic works in one migration at a time of a process.
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(migrate, [SecretStr(url)] * 3))
    assert catalogue(url) == fresh


def test_no_other_login_holds_up_a_migration(postgres: Services) -> None:
    """The lock is on a table that other logins may not even read."""
    for url in (postgres.api_url, postgres.worker_url, postgres.operator_url):
        with (
            psycopg.connect(url) as other,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            other.execute("LOCK TABLE alembic_version IN ACCESS SHARE MODE")


def test_a_migration_goes_on_when_the_lock_is_free(
    held: Held, fresh: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.store.migrations.time.sleep", lambda _: held.end())
    migrate(SecretStr(held.url))
    assert catalogue(held.url) == fresh


def test_a_migration_does_not_last_for_ever(empty: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "STATEMENT_TIMEOUT", timedelta(milliseconds=1))
    with pytest.raises(StoreUnavailable, match="statement timeout"):
        migrate(SecretStr(empty()))
