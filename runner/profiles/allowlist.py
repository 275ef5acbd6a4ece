"""The smallest egress allowlist for what a command reached, compared with the rules it had."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runner.egress.policy import Rule, Scheme
from runner.egress.session import Decision


@dataclass(frozen=True, slots=True)
class Allowlist:
    """Rules, in the form that a request may contain."""

    given: tuple[str, ...]
    reached: tuple[str, ...]
    refused: tuple[str, ...]
    """The requests that no rule permitted."""

    def diff(self) -> str:
        """Return the unified diff from the given rules to the rules that were needed."""
        lines = difflib.unified_diff(
            [f"{name}\n" for name in self.given],
            [f"{name}\n" for name in self.reached],
            "a/egress",
            "b/egress",
        )
        return "".join(lines)


def smallest(given: Sequence[Rule], decisions: Iterable[Decision]) -> Allowlist:
    """Return a rule for each host and port that was reached: exact, without wildcards."""
    reached, refused = set(), set()
    for decision in decisions:
        rule = Rule(decision.host, decision.port, _scheme(decision)).name
        if decision.outcome == "allowed":
            reached.add(rule)
        elif decision.reason == "no_rule":
            refused.add(rule)
    return Allowlist(
        given=tuple(sorted(rule.name for rule in given)),
        reached=tuple(sorted(reached)),
        refused=tuple(sorted(refused)),
    )


def _scheme(decision: Decision) -> Scheme:
    if decision.method == "http" or (decision.rule or "").startswith("http://"):
        return "http"
    return "tcp" if (decision.rule or "").startswith("tcp://") else "https"
