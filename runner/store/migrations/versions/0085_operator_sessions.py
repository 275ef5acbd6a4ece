"""Operators sign in to their console: sessions, which rest on an operator's key."""

from runner.store.migrations import run_sql_file

revision = "0085"
down_revision = "0080"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0085_operator_sessions.sql")
