"""The alert rules, by Debian's promtool: each fires for its fault, and not without it."""

from pathlib import Path

import pytest
import yaml

from tests.support.prometheus import MONITORING, RULES, promtool

ALERTS = [rule["alert"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]]


def test_rules_are_well_formed_and_hold_their_tests() -> None:
    checked = promtool("check", "rules", RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool("test", "rules", MONITORING / "rules.test.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_a_rule_that_never_fires_fails_the_tests(alert: str, tmp_path: Path) -> None:
    document = yaml.safe_load(RULES.read_text())
    for rule in document["groups"][0]["rules"]:
        if rule["alert"] == alert:
            rule["expr"] = "vector(0) > 1"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(document))
    tests = tmp_path / "rules.test.yaml"
    tests.write_text((MONITORING / "rules.test.yaml").read_text())
    tested = promtool("test", "rules", tests)
    assert tested.returncode == 1
    assert alert in tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_explained(alert: str) -> None:
    page = (MONITORING.parents[1] / "docs" / "operations" / "monitoring.md").read_text()
    assert f"| `{alert}` |" in page
