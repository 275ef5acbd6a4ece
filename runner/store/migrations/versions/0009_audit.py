"""Signed checkpoints of the audit chains, and where forwarding of them has got to."""

from runner.store.migrations import run_sql_file

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0009_audit.sql")
