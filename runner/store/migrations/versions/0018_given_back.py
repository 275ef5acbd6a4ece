"""An attempt that a broken node gives back costs its execution none of its attempts."""

from runner.store.migrations import run_sql_file

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0018_given_back.sql")
