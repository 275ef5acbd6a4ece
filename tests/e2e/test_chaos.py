"""Two faults of the catalogue, once each, while both uses go on: a small `make chaos`."""

import asyncio

import pytest

from benchmarks.chaos import Survived, chosen, run
from tests.support.deployment import build_image


@pytest.fixture(scope="module")
def survived() -> list[Survived]:
    """Return what became of a worker that is killed, and of an API that is."""
    build_image()
    return asyncio.run(run(chosen("2,13"), rounds=1))


@pytest.mark.timeout(300)
def test_nothing_is_lost_doubled_or_left_behind(survived: list[Survived]) -> None:
    """`tests/unit/test_stress.py` and `test_soak.py` show that losses would be seen."""
    assert [each.wrong for each in survived] == [[], []]


def test_both_uses_went_on(survived: list[Survived]) -> None:
    for each in survived:
        assert each.accepted > 1, each
        assert len(each.executions) == len(each.sandboxes) == each.rounds == 1
