"""Tags that can be moved, and templates that the operator has made everybody's."""

from runner.store.migrations import run_sql_file

revision = "0053"
down_revision = "0052"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0053_shared_templates.sql")
