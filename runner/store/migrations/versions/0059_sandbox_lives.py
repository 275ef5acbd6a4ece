"""What a sandbox has come through is found at once, whatever else was done in it."""

from runner.store.migrations import run_sql_file

revision = "0059"
down_revision = "0058"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0059_sandbox_lives.sql")
