"""Sandboxes: resumed by use, hours a day, receipts of their ends, what stays masked in them."""

from runner.store.migrations import run_sql_file

revision = "0027"
down_revision = "0025"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0027_sandbox_lives.sql")
