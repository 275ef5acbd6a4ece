"""Schema changes, applied by Alembic in order; each is one SQL file beside its revision.

Run by the schema's owner (`runner migrate`), never by the API or the worker. Forward only: a file
that has landed is never edited (`versions/SHA256SUMS` holds its digest); a new revision changes
what it made.
"""

from importlib import resources
from typing import NoReturn

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from runner.words.errors import SetupError, StoreUnavailable

MIGRATION_LOCK = 7_203_551_004
"""Advisory lock: two migrations at once run one after the other."""


def run_sql_file(name: str) -> None:
    """Execute a whole SQL file of `versions/` inside the migration's transaction."""
    from alembic import op

    text = resources.files(__package__).joinpath("versions", name).read_text("utf-8")
    connection = op.get_bind().connection.driver_connection
    if not isinstance(connection, psycopg.Connection):
        raise TypeError(f"migrations need psycopg, not {type(connection).__name__}")
    # Without parameters psycopg sends the text as it is: several statements, `%` untouched.
    connection.execute(text.encode())


def refuse(why: str) -> NoReturn:
    """Raise SetupError: this database cannot be migrated, and what to do instead."""
    raise SetupError(why)


def migrate(owner_url: SecretStr, *login_urls: SecretStr) -> None:
    """Bring the schema up to date and give each login role the password of its URL.

    Raises StoreUnavailable when PostgreSQL does not answer.
    """
    # A third of a second, which commands that migrate nothing need not spend.
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(owner_url.get_secret_value(), connect_timeout=5),
        poolclass=sqlalchemy.NullPool,
    )
    config = Config()
    config.set_main_option("script_location", str(resources.files(__package__)))
    try:
        with engine.connect() as connection, connection.begin():
            connection.execute(
                sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK}
            )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except sqlalchemy.exc.OperationalError as error:
        raise StoreUnavailable(f"PostgreSQL refused the migration: {error.orig}") from error
    with psycopg.connect(owner_url.get_secret_value(), connect_timeout=5) as owner:
        for url in login_urls:
            login = conninfo_to_dict(url.get_secret_value())
            if login.get("password"):
                owner.execute(
                    sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                        sql.Identifier(str(login["user"])), sql.Literal(str(login["password"]))
                    )
                )
