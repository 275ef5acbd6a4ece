"""Labels of executions as rows: a listing by metadata reads an index."""

from runner.store.migrations import run_sql_file

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0022_labels.sql")
