"""One signed receipt for each ended execution."""

from runner.store.migrations import run_sql_file

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0004_receipts.sql")
