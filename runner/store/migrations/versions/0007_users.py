"""Users with passwords, their memberships and sessions, invitations, and reset passwords."""

from runner.store.migrations import run_sql_file

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0007_users.sql")
