"""Templates: what sandboxes are made from, built by tenants."""

from runner.store.migrations import run_sql_file

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0037_templates.sql")
