"""Quotas of templates, and how long one is kept that no tag stands for."""

from runner.store.migrations import run_sql_file

revision = "0054"
down_revision = "0053"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0054_kept_templates.sql")
