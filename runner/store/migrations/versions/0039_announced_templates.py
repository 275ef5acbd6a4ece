"""Templates that are announced before their steps are known, as E2B's clients do it."""

from runner.store.migrations import run_sql_file

revision = "0039"
down_revision = "0038"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0039_announced_templates.sql")
