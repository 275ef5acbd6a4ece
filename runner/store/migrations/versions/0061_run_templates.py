"""Executions run in sandboxes of templates."""

from runner.store.migrations import run_sql_file

revision = "0061"
down_revision = "0060"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0061_run_templates.sql")
