"""Snapshots: their own quota, an end, and idempotency keys."""

from runner.store.migrations import run_sql_file

revision = "0033"
down_revision = "0031"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0033_kept_snapshots.sql")
