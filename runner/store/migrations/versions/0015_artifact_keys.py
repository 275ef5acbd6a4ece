"""Artifacts are told apart by ids of ours, and not by names that programs choose."""

from runner.store.migrations import run_sql_file

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Apply the SQL file beside this one."""
    run_sql_file("0015_artifact_keys.sql")
