"""Tenants' secrets, sealed; and which of them an execution has in its environment."""

from runner.store.migrations import run_sql_file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0005_secrets.sql")
