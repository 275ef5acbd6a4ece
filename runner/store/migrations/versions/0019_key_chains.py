"""Indexes by which a long chain of keys, each made by the one before, is ended quickly."""

from runner.store.migrations import run_sql_file

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0019_key_chains.sql")
