"""An operator learns before a tenant is erased that other tenants build on its templates."""

from runner.store.migrations import run_sql_file

revision = "0058"
down_revision = "0055"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0058_erasing_builders.sql")
