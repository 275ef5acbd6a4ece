"""What a template starts in its sandboxes, and how it knows that they are ready."""

from runner.store.migrations import run_sql_file

revision = "0052"
down_revision = "0051"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0052_startup.sql")
