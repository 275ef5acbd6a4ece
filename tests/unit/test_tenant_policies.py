"""A rule that a tenant may not have is named as its client sent it."""

import pytest

from runner.egress.policy import Policy, parse_rule
from runner.tenants.policies import permitted
from runner.words.errors import Invalid

CEILING = Policy(rules=(parse_rule("*.example.com"),))


@pytest.mark.parametrize("field", ["egress", "rules", "egress_ceiling"])
@pytest.mark.parametrize("wrong", ["elsewhere.example", "https://", "tcp://a.example.com"])
def test_a_refused_rule_is_named_by_its_field_and_its_place(field: str, wrong: str) -> None:
    with pytest.raises(Invalid) as refused:
        permitted(["a.example.com", wrong], [CEILING], field=field)
    assert refused.value.field == f"{field}.1"


def test_rules_within_every_ceiling_are_returned_whole() -> None:
    (rule,) = permitted(["a.example.com"], [CEILING, CEILING], field="rules")
    assert rule == parse_rule("a.example.com")
