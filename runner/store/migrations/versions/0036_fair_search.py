"""A search for who signed an address that no tenant fills, over keys that may be used."""

from runner.store.migrations import run_sql_file

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0036_fair_search.sql")
