"""Keys are no longer taken from the database; how long a log has waited for its seal is."""

from runner.store.migrations import run_sql_file

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0014_seals.sql")
