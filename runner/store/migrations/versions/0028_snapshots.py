"""Snapshots of sandboxes' files: their rows, which name objects in the store."""

from runner.store.migrations import run_sql_file

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0028_snapshots.sql")
