"""Which tenants have work, for an operator who watches."""

from runner.store.migrations import run_sql_file

revision = "0051"
down_revision = "0050"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0051_load.sql")
