"""The ledger counts the bytes that go through the ports of living sandboxes."""

from runner.store.migrations import run_sql_file

revision = "0080"
down_revision = "0076"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0080_port_bytes.sql")
