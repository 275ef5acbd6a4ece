"""A session that began at the identity provider ends with the link that it rests on."""

from runner.store.migrations import run_sql_file

revision = "0086"
down_revision = "0085"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0086_sessions_by_link.sql")
