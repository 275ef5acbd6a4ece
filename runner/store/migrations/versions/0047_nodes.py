"""Nodes have rows: what each can hold, where its door is, and whether it takes anything."""

from runner.store.migrations import run_sql_file

revision = "0047"
down_revision = "0039"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0047_nodes.sql")
