"""Which wall an execution asks for, and which one a tenant must have."""

from runner.store.migrations import run_sql_file

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0002_isolation.sql")
