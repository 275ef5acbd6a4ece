"""What tenants may use and have used, and whose turn it is."""

from runner.store.migrations import run_sql_file

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0010_usage.sql")
