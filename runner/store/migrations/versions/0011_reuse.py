"""A loaded interpreter, and sandboxes that serve their tenant again, where it is asked for."""

from runner.store.migrations import run_sql_file

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0011_reuse.sql")
