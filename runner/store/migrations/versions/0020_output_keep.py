"""An execution says which part of long output is kept."""

from runner.store.migrations import run_sql_file

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0020_output_keep.sql")
