"""Ports of living sandboxes that somebody has opened."""

from runner.store.migrations import run_sql_file

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0025_ports.sql")
