"""The check after killed clients of E2B's SDK counts everything that is left behind."""

from dataclasses import asdict, replace

import pytest

from benchmarks.e2b_kills import SPARE, Holdings, differences

START = Holdings(
    containers=2, folders=2, sockets=3, processes=9, living=0, leases=0, descriptors=80
)


@pytest.mark.parametrize("name", sorted(asdict(START)))
def test_one_more_of_anything_is_noticed(name: str) -> None:
    """Of descriptors, which connections are kept by, more than a few."""
    more = SPARE + 1 if name == "descriptors" else 1
    after = replace(START, **{name: asdict(START)[name] + more})
    assert differences(START, after) == [
        f"{asdict(after)[name]} {name}, {asdict(START)[name]} at the start"
    ]


def test_fewer_descriptors_are_fine_and_fewer_sandboxes_are_not() -> None:
    """A pool that is not full again has lost something."""
    assert differences(START, START) == []
    assert differences(START, replace(START, descriptors=70)) == []
    assert differences(START, replace(START, containers=1)) == ["1 containers, 2 at the start"]
