"""What workers need in order to read a tenant's standing."""

from runner.store.migrations import run_sql_file

revision = "0035"
down_revision = "0033"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0035_standing_for_workers.sql")
