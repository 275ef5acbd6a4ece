"""Logins may do less: tenants end whole, people change in their tenants, claims lock a table."""

from runner.store.migrations import run_sql_file

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0017_least.sql")
