"""A node leaves executions of a template for a moment to a node that has its image."""

from runner.store.migrations import run_sql_file

revision = "0076"
down_revision = "0075"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0076_near_templates.sql")
