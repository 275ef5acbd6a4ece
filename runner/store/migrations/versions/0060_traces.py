"""An execution knows the trace of the request that submitted it."""

from runner.store.migrations import run_sql_file

revision = "0060"
down_revision = "0059"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0060_traces.sql")
