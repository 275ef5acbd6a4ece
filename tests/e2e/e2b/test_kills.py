"""E2B clients that are killed at random leave nothing: a small `benchmarks.e2b_kills`."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.e2b import interpreter
from benchmarks.e2b_kills import Terms, run
from tests.support.deployment import build_image

TERMS = Terms(sandboxes=30, clients=3)


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_nothing_is_left_of_sandboxes_whose_clients_were_killed(tmp_path: Path) -> None:
    """Some are killed by their client, others end by their own time."""
    build_image("base")
    survived = asyncio.run(run(TERMS, interpreter(tmp_path)))
    assert survived.wrong == []
    assert survived.steps["made"] >= TERMS.sandboxes
    assert survived.clients_killed > 1
    assert set(survived.ends) >= {"killed", "expired"}, survived.ends
    assert not survived.faults, survived.faults
