"""Which keys may hold tokens of sandboxes, for signed addresses that name neither."""

from runner.store.migrations import run_sql_file

revision = "0031"
down_revision = "0029"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0031_sandbox_tokens.sql")
