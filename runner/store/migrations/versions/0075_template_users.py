"""Templates name the user of their sandboxes."""

from runner.store.migrations import run_sql_file

revision = "0075"
down_revision = "0067"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0075_template_users.sql")
