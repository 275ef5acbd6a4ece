"""The first schema: tenants, executions, events, artifacts, audit; row-level security forced."""

from runner.store.migrations import run_sql_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0001_initial.sql")
