"""Tiers and suspension of tenants, the life of API keys, projects, and the platform's operators."""

from runner.store.migrations import run_sql_file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0006_identity.sql")
