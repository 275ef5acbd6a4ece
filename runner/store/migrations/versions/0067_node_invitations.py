"""Hosts join by one-time tokens, of which only hashes are stored."""

from runner.store.migrations import run_sql_file

revision = "0067"
down_revision = "0064"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0067_node_invitations.sql")
