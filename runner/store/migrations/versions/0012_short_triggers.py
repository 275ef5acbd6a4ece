"""What every execution writes costs fewer statements: the chain's head, and the queues' counts."""

from runner.store.migrations import run_sql_file

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0012_short_triggers.sql")
