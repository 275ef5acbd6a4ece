"""Schema changes, applied by Alembic in order; each is one SQL file beside its revision.

The schema's owner runs them (`runner migrate`), never the API or the worker. They only go forward:
a file that has landed is never edited (`versions/SHA256SUMS` holds its digest); a new revision
changes what it made.

Everything is one transaction. It does not wait long for a lock: everybody who asks for the same
table later would wait behind it, so one long transaction of somebody else would stop them all.

    env   Alembic's entry point
    plan  what would be done, told without doing it
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from importlib import resources
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from runner.words.errors import SetupError, StoreUnavailable

if TYPE_CHECKING:
    import sqlalchemy

LOCK_TIMEOUT = timedelta(seconds=3)
"""How long to wait for the lock of a table or row, while others wait behind us."""
LOCK_PAUSES_S = (2.0, 5.0, 10.0, 20.0)
"""Pause before each further try, in which others get their turn."""
STATEMENT_TIMEOUT = timedelta(minutes=30)
"""How long PostgreSQL lets one statement run, such as an index of a large table."""
LOCKED = (
    "another transaction holds a lock that the migration needs, and did not end in {tries} tries; "
    "nothing was changed. Stop the APIs and the workers, or find it with `SELECT pid, usename, "
    "xact_start FROM pg_stat_activity WHERE xact_start IS NOT NULL ORDER BY xact_start` and end it "
    "with `SELECT pg_terminate_backend(pid)`; then migrate again"
)

ENCODING = "UTF8"
WRONG_ENCODING = (
    "the database {name} stores text as {encoding}, not as UTF8; drop it, make it again with "
    "`CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8'`, and migrate again"
)

_VERSION_TABLE = (
    "CREATE TABLE IF NOT EXISTS alembic_version "
    "(version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY)"
)
"""Alembic's own table, exactly as Alembic makes it."""
_SET = "SELECT set_config(:name, :value, true)"


def run_sql_file(name: str) -> None:
    """Execute a whole SQL file of `versions/` inside the migration's transaction."""
    from alembic import op

    text = resources.files(__package__).joinpath("versions", name).read_text("utf-8")
    connection = op.get_bind().connection.driver_connection
    if not isinstance(connection, psycopg.Connection):
        raise TypeError(f"migrations need psycopg, not {type(connection).__name__}")
    # Without parameters, psycopg sends the text unchanged: several statements, `%` untouched.
    connection.execute(text.encode())


def refuse(why: str) -> NoReturn:
    """Raise SetupError with the reason why this database cannot be migrated and what to do."""
    raise SetupError(why)


def migrate(owner_url: SecretStr, *login_urls: SecretStr) -> None:
    """Bring the schema up to date and give each login role the password of its URL.

    Raises StoreUnavailable if PostgreSQL does not answer or a lock cannot be had, and SetupError
    if the database does not store text as UTF-8.
    """
    log = structlog.get_logger("runner.migrate")
    for pause_s in (*LOCK_PAUSES_S, None):
        try:
            _upgrade(owner_url)
            break
        except psycopg.errors.LockNotAvailable as error:
            if pause_s is None:
                raise StoreUnavailable(LOCKED.format(tries=len(LOCK_PAUSES_S) + 1)) from error
            log.warning("migration_waits_for_a_lock", again_in_s=pause_s)
            time.sleep(pause_s)
        except psycopg.OperationalError as error:
            why = " ".join(str(error).split())
            raise StoreUnavailable(f"PostgreSQL refused the migration: {why}") from error
    _set_passwords(owner_url, login_urls)


def _upgrade(owner_url: SecretStr) -> None:
    """Apply all new revisions or none. Raises psycopg's errors."""
    # Import it here: it takes a third of a second, and most commands migrate nothing.
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: connected(owner_url),
        poolclass=sqlalchemy.NullPool,
    )
    config = Config()
    config.set_main_option("script_location", str(resources.files(__package__)))
    try:
        with engine.connect() as connection, connection.begin():
            _bound(connection, "statement_timeout", STATEMENT_TIMEOUT)
            # Wait as long as the other migration takes: nobody queues behind this lock.
            _take_turn(connection)
            _bound(connection, "lock_timeout", LOCK_TIMEOUT)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except sqlalchemy.exc.OperationalError as error:
        raise (error.orig or error) from error


def connected(owner_url: SecretStr) -> "psycopg.Connection[tuple[Any, ...]]":
    """Connect. Raises SetupError if the database does not store text as UTF-8.

    psycopg would read the texts of one that stores SQL_ASCII as bytes, and every other encoding
    lacks characters that users send. A server whose locale is C makes such databases.
    """
    connection = psycopg.connect(owner_url.get_secret_value(), connect_timeout=5)
    told = connection.info
    if (encoding := told.parameter_status("server_encoding")) != ENCODING:
        why = WRONG_ENCODING.format(name=told.dbname, encoding=encoding, owner=told.user)
        connection.close()
        raise SetupError(why)
    return connection


def _take_turn(connection: "sqlalchemy.Connection") -> None:
    """Wait until no other migration runs, and let none run until this transaction ends.

    Only the owner may lock this table; any login could hold an advisory lock.
    """
    import sqlalchemy

    try:
        with connection.begin_nested():
            connection.execute(sqlalchemy.text(_VERSION_TABLE))
    except sqlalchemy.exc.IntegrityError:
        # Raised if another migration of an empty database has made it meanwhile.
        pass
    lock = "LOCK TABLE alembic_version IN SHARE UPDATE EXCLUSIVE MODE"
    connection.execute(sqlalchemy.text(lock))


def _bound(connection: "sqlalchemy.Connection", name: str, bound: timedelta) -> None:
    import sqlalchemy

    milliseconds = str(bound // timedelta(milliseconds=1))
    connection.execute(sqlalchemy.text(_SET), {"name": name, "value": milliseconds})


def _set_passwords(owner_url: SecretStr, login_urls: Sequence[SecretStr]) -> None:
    with psycopg.connect(owner_url.get_secret_value(), connect_timeout=5) as owner:
        for url in login_urls:
            login = conninfo_to_dict(url.get_secret_value())
            if login.get("password"):
                owner.execute(
                    sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                        sql.Identifier(str(login["user"])), sql.Literal(str(login["password"]))
                    )
                )
