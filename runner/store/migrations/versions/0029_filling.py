"""Sandboxes that begin with files: whether these are there."""

from runner.store.migrations import run_sql_file

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0029_filling.sql")
