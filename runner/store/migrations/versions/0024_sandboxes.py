"""Sandboxes that live: their rows, their leases, and what a tier may have of them."""

from runner.store.migrations import run_sql_file

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0024_sandboxes.sql")
