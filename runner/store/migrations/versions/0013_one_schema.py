"""Bring databases that an earlier text of 0004, 0007 or 0011 migrated to the one schema."""

from alembic import op
from sqlalchemy import inspect

from runner.store.migrations import refuse, run_sql_file

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Apply the SQL file beside this one.

    Raises SetupError when the database lacks whole tables: a development branch migrated it, whose
    0008, 0009 or 0010 followed 0006 directly.
    """
    if not inspect(op.get_bind()).has_table("users"):
        refuse(
            "this database was migrated by a development branch that was never released: it calls "
            "itself newer than 0007 and has no table of users. Make a new database and migrate that"
        )
    run_sql_file("0013_one_schema.sql")
