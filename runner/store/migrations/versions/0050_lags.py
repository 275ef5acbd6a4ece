"""How far the deployment is behind, for its metrics."""

from runner.store.migrations import run_sql_file

revision = "0050"
down_revision = "0048"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0050_lags.sql")
