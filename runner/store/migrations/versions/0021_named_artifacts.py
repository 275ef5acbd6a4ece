"""Executions that name the files they want kept."""

from runner.store.migrations import run_sql_file

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0021_named_artifacts.sql")
