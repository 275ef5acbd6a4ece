"""Submissions of one tenant wait for each other at a lock that needs a right."""

from runner.store.migrations import run_sql_file

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0023_submission_turn.sql")
