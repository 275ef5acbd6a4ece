"""Egress rules with their scheme, named policies, and decisions as events."""

from runner.store.migrations import run_sql_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0003_egress.sql")
