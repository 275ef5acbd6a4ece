"""Pushed code runs jobs with few rights, and the audit accepts listed findings only."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAY_WRITE = {"codeql.yml": {"security-events"}, "semgrep.yml": {"security-events"}}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_the_least_permissions(path: Path) -> None:
    """It may only read, unless the table says otherwise; no credential stays; time is bounded."""
    workflow: dict[str, Any] = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        granted = job.get("permissions", {})
        assert {name for name, right in granted.items() if right == "write"} <= MAY_WRITE.get(
            path.name, set()
        )
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"] == {"persist-credentials": False}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_not_told_by_strangers_what_to_do(path: Path) -> None:
    """No trigger has the repository's secrets, and no command holds text from a pull request."""
    text = path.read_text()
    for trigger in ("pull_request_target", "workflow_run", "issue_comment"):
        assert trigger not in text
    assert "${{ github.event." not in text
    assert "secrets." not in text


def test_whatever_the_audit_lets_pass_has_its_reason() -> None:
    policy = tomllib.loads((ROOT / "scripts" / "audit.toml").read_text())
    for entry in [*policy["code"]["accepted"], *policy["secrets"]["accepted"]]:
        assert len(entry["why"]) > 5, entry
    assert all(policy["licences"]["exceptions"].values())
    assert not any("GPL" in licence for licence in policy["licences"]["allowed"])
