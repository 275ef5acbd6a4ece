"""Files of tenants, the ledger of stored objects with its quota, and retention."""

from runner.store.migrations import run_sql_file

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0008_files.sql")
