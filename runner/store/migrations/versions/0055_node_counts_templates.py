"""Nodes read how many templates a tenant has, with its other quotas."""

from runner.store.migrations import run_sql_file

revision = "0055"
down_revision = "0054"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0055_node_counts_templates.sql")
