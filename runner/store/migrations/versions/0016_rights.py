"""Which rights still stand, asked for many at once by whoever serves long requests."""

from runner.store.migrations import run_sql_file

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0016_rights.sql")
