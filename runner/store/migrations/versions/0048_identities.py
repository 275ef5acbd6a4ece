"""Subjects of an identity provider that stand for members."""

from runner.store.migrations import run_sql_file

revision = "0048"
down_revision = "0047"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0048_identities.sql")
