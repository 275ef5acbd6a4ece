"""The result of a verification: a table for people, a signed document for reviewers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from runner import __version__
from runner.verify.check import Check, Group
from runner.verify.guests import Way
from runner.verify.suite import CheckResult, CheckVerdict
from runner.words.sandbox import Isolation
from runner.words.text import escaped, printable

KIND = "agent-runner/verification/v1"

PAGE_HEAD = """\
# The checks

`runner verify --list` writes this page, and a test compares it with the code. Each of the {count}
checks is tried twice: with its control, when it must be stopped, and without it, when it must
succeed. `runner verify` does this on your own host, and `runner verify --living` in sandboxes that
live. It says which checks could not be shown there, and why."""

_STYLES = {
    CheckVerdict.HELD: "green",
    CheckVerdict.UNSHOWN: "yellow",
    CheckVerdict.DIFFERS: "cyan",
    CheckVerdict.BREACHED: "bold red",
    CheckVerdict.BROKEN: "bold magenta",
}


def by_group(outcomes: Sequence[CheckResult]) -> Table:
    """Return how many checks of each group held, and how many could be shown to fail."""
    table = Table("group", *(verdict.value for verdict in CheckVerdict), "all")
    counts = Counter((outcome.check.group, outcome.verdict) for outcome in outcomes)
    for group in Group:
        row = [counts[group, verdict] for verdict in CheckVerdict]
        if sum(row):
            table.add_row(group.value, *(str(n or "") for n in row), str(sum(row)))
    totals = [sum(counts[group, verdict] for group in Group) for verdict in CheckVerdict]
    table.add_section()
    table.add_row("all", *(str(n or "") for n in totals), str(sum(totals)))
    return table


def in_need(outcomes: Sequence[CheckResult], *, unshown: bool) -> Table:
    """Return checks that did not hold or prove nothing; with `unshown`, also those not shown."""
    table = Table("check", "verdict", "with the control", "without it", "what it means")
    for outcome in outcomes:
        if outcome.good and not (unshown and outcome.verdict is not CheckVerdict.HELD):
            continue
        why = outcome.differs or outcome.why_unshown
        bare = outcome.unguarded.saw if outcome.unguarded else why
        table.add_row(
            outcome.check.id,
            f"[{_STYLES[outcome.verdict]}]{outcome.verdict.value}[/]",
            escape(outcome.guarded.saw),
            escape(bare),
            escape(outcome.check.meaning),
        )
    return table


def behind(outcomes: Sequence[CheckResult]) -> str:
    """Return which layers of the host stop which checks, beside the checks' own controls."""
    found: dict[str, list[str]] = {}
    for outcome in outcomes:
        for title in outcome.also_held_by:
            found.setdefault(title, []).append(outcome.check.id)
    lines = [f"{title} also holds: {', '.join(ids)}" for title, ids in found.items()]
    return "\n".join(lines)


def document(
    outcomes: Sequence[CheckResult],
    *,
    isolation: Isolation,
    ways: Sequence[Way],
    tries: int,
    node: str,
    docker: str,
    runtime: str,
    seconds: float,
) -> dict[str, Any]:
    """Return the report's body, to be signed. `tries` counts the programs that were tried."""
    return {
        "version": __version__,
        "node": node,
        "docker": docker,
        "runtime": runtime,
        "isolation": isolation.value,
        "ways": [way.value for way in ways],
        "tries": tries,
        "at": datetime.now(UTC).isoformat(),
        "seconds": round(seconds, 1),
        "good": all(outcome.good for outcome in outcomes),
        "counts": dict(Counter(outcome.verdict.value for outcome in outcomes)),
        "checks": [
            {
                "id": outcome.check.id,
                "group": outcome.check.group.value,
                "severity": outcome.check.severity.value,
                "title": outcome.check.title,
                "control": outcome.check.control,
                "source": outcome.check.source,
                "verdict": outcome.verdict.value,
                "guarded": asdict(outcome.guarded),
                "unguarded": asdict(outcome.unguarded) if outcome.unguarded else None,
                "why_unshown": outcome.why_unshown,
                "differs": outcome.differs,
                "also_held_by": list(outcome.also_held_by),
            }
            for outcome in outcomes
        ],
    }


def page(checks: Sequence[Check]) -> str:
    """Return the list of all checks, for `docs/security/checks.md`."""
    lines = [PAGE_HEAD.format(count=len(checks))]
    for group in Group:
        lines += [f"\n## {group.value}\n", "| check | what it would mean | stopped by | source |"]
        lines.append("|---|---|---|---|")
        for check in checks:
            if check.group is group:
                cells = (check.title, check.meaning, check.control, check.source)
                shown = " | ".join(_cell(cell) for cell in cells)
                lines.append(f"| {shown} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return printable(text.replace("|", "\\|"), escaped)
