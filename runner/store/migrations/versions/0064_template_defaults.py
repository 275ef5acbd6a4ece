"""Templates say what their sandboxes may use, and in which folder processes start."""

from runner.store.migrations import run_sql_file

revision = "0064"
down_revision = "0061"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0064_template_defaults.sql")
