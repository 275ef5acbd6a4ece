"""The table of a sandbox's life is sound, and the SQL and the page keep to it."""

import re
from pathlib import Path

import pytest

from runner.store.transaction import query
from runner.words.lives import ALLOWED_LIVES, LIVING, EndReason, Life, before, may_become

PAGE = Path(__file__).resolve().parents[2] / "docs/operations/sandboxes.md"


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    """A sandbox begins as `starting`; every other state follows one of the table."""
    assert set(ALLOWED_LIVES) == set(Life)
    assert set().union(*ALLOWED_LIVES.values()) == set(Life) - {Life.STARTING}


@pytest.mark.parametrize("life", sorted(LIVING))
def test_a_sandbox_can_be_ended_in_every_state(life: Life) -> None:
    """A kill is never refused, and a node that is lost can end what it held."""
    assert may_become(life, Life.ENDED)
    assert may_become(life, Life.STOPPING) or life is Life.STOPPING


def test_nothing_follows_the_end() -> None:
    assert not any(may_become(Life.ENDED, life) for life in Life)


def test_only_a_running_sandbox_is_paused_and_only_a_paused_one_resumed() -> None:
    assert before(Life.PAUSING) == (Life.RUNNING,)
    assert before(Life.RESUMING) == (Life.PAUSED,)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("sandboxes.start", Life.RUNNING),
        ("sandboxes.begin", Life.RUNNING),
        ("sandboxes.ask_to_stop", Life.STOPPING),
        ("sandboxes.end_unclaimed", Life.ENDED),
        ("sandboxes.end", Life.ENDED),
        ("sandboxes.end_expired", Life.ENDED),
    ],
)
def test_a_statement_names_only_sources_that_the_table_allows(name: str, target: Life) -> None:
    """A compare-and-set cannot make a change that the table forbids."""
    sources = sources_of(name)
    assert sources
    assert all(may_become(source, target) for source in sources), sources


def test_no_state_keeps_a_sandbox_from_being_ended_or_asked_to_stop() -> None:
    for name in ("sandboxes.end", "sandboxes.end_expired"):
        assert sources_of(name) == LIVING
    assert sources_of("sandboxes.ask_to_stop") == LIVING - {Life.STOPPING}
    assert sources_of("sandboxes.update") == LIVING - {Life.STOPPING}


def sources_of(name: str) -> set[Life]:
    """Return the states from which a statement changes a sandbox."""
    where = query(name).partition("WHERE")[2].partition("RETURNING")[0]
    named = re.findall(r"state (?:=|IN) \(?('[^)\n;]*')", where)
    return {Life(word) for each in named for word in re.findall(r"'(\w+)'", each)}


def test_the_page_explains_every_state_and_every_reason() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ", PAGE.read_text(), re.MULTILINE)
    assert {row for row in rows if row in set(Life)} == set(Life)
    assert {row for row in rows if row in set(EndReason)} == set(EndReason)
