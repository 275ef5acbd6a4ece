"""The table of permitted changes is consistent, and the SQL follows it."""

import re
from pathlib import Path

import pytest

from runner.store.transaction import query
from runner.words.execution import EventKind
from runner.words.states import ACTIVE, ALLOWED, ENDED, WAITING, Reason, State, may_change

PAGE = Path(__file__).resolve().parents[2] / "docs/operations/executions.md"


def test_every_state_is_waiting_active_or_ended_and_only_one_of_them() -> None:
    """Each state belongs to exactly one of the three groups."""
    assert set(State) == WAITING | ACTIVE | ENDED
    assert len(WAITING) + len(ACTIVE) + len(ENDED) == len(State)
    assert set(ALLOWED) == set(State)


@pytest.mark.parametrize("state", sorted(ENDED))
def test_nothing_leaves_an_ended_state(state: State) -> None:
    """An end is final."""
    assert not any(may_change(state, target) for target in State)


def test_every_state_can_be_reached_and_every_open_one_can_end() -> None:
    """No state is unreachable, and the table lets no execution get stuck."""
    reached = set().union(*ALLOWED.values())
    assert reached == set(State)
    for state in WAITING | ACTIVE:
        assert ALLOWED[state] & ENDED


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("executions.start_running", State.RUNNING),
        ("executions.requeue", State.QUEUED),
        ("executions.cancel_queued", State.CANCELLED),
    ],
)
def test_a_statement_names_only_sources_that_the_table_allows(name: str, target: State) -> None:
    """A compare-and-set cannot make a change that the table forbids."""
    where = query(name).partition("WHERE")[2].partition("RETURNING")[0]
    sources = re.findall(r"state (?:=|IN) \(?('[^)\n]*')", where)
    named = {State(word) for each in sources for word in re.findall(r"'(\w+)'", each)}
    assert named
    assert all(may_change(source, target) for source in named), named


def test_the_page_for_integrators_explains_every_state_reason_and_event() -> None:
    text = PAGE.read_text().partition("## Why it waited or ended")[0]
    outcomes = re.findall(r"^\| `(\w+)` \| (?:`(\w+)`|\W) \|", text, re.MULTILINE)
    assert {state for state, _ in outcomes} == set(State)
    assert {reason for _, reason in outcomes if reason} == set(Reason)
    assert all(bool(reason) == (state in ENDED) for state, reason in outcomes)
    assert set(re.findall(r"^\| `(\w+)` \| [a-z]", text, re.MULTILINE)) == set(EventKind)
