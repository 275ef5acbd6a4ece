"""Paused sandboxes that become snapshots when their host is short of memory."""

from runner.store.migrations import run_sql_file

revision = "0038"
down_revision = "0037"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0038_evicted.sql")
