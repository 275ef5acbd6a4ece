"""Nodes that can take a sandbox are asked in an order, the best first."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from runner.fleet.choice import NodeNeed, candidates, why_none
from runner.store.nodes import StoredNode
from runner.words.ids import new_id
from runner.words.nodes import NodeState
from runner.words.sandbox import Isolation
from runner.words.templates import image_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEMPLATE = new_id()
NODE = StoredNode(
    node="a",
    state=NodeState.READY,
    draining=False,
    version="1",
    door="unix:/a",
    zone="east",
    isolations=(Isolation.CONTAINER,),
    images=("python",),
    templates=(),
    slots=4,
    sandboxes=10,
    cpus=2,
    memory_mb=4096,
    running=0,
    living=5,
    free_mb=4096,
    fault=None,
    joined_at=NOW,
    started_at=NOW,
    seen_at=NOW,
)
WANTED = NodeNeed("python", Isolation.CONTAINER, 512)
OTHER = replace(NODE, node="b")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"state": NodeState.DRAINING}, "1 draining"),
        ({"state": NodeState.AWAY}, "1 away"),
        ({"isolations": (Isolation.GVISOR,)}, "1 without the isolation container"),
        ({"images": ("data",)}, "1 without the image python"),
        ({"living": 10}, "1 full"),
        ({"sandboxes": 0, "living": 0}, "1 full"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_node_that_cannot_take_it_is_not_asked(changed: dict[str, object], why: str) -> None:
    unfit = replace(NODE, **changed)  # type: ignore[arg-type]
    assert candidates([unfit, OTHER], WANTED) == [OTHER]
    assert candidates([unfit], WANTED) == []
    assert f"({why})" in why_none([unfit], WANTED)


@pytest.mark.parametrize(
    "better",
    [
        {"living": 4},
        {"zone": "west"},
        {"templates": (TEMPLATE,), "living": 9, "zone": "east"},
    ],
    ids=["emptier", "own-zone", "has-the-template"],
)
def test_the_best_is_asked_first(better: dict[str, object]) -> None:
    """Its name comes later, so that nothing but what it is better in can be the reason."""
    best = replace(OTHER, node="z", **better)  # type: ignore[arg-type]
    wanted = replace(WANTED, image=image_of("mine", TEMPLATE))
    assert [each.node for each in candidates([NODE, best], wanted, zone="west")] == ["z", "a"]


@pytest.mark.parametrize(
    "worse", [{"fault": "Docker is away"}, {"free_mb": 100}], ids=["broken", "short-of-memory"]
)
def test_one_in_trouble_is_asked_last_even_if_it_is_empty(worse: dict[str, object]) -> None:
    troubled = replace(NODE, living=0, **worse)  # type: ignore[arg-type]
    assert [each.node for each in candidates([troubled, OTHER], WANTED)] == ["b", "a"]


def test_what_was_sent_to_a_node_counts_before_it_tells_of_it() -> None:
    assert [each.node for each in candidates([NODE, OTHER], WANTED)] == ["a", "b"]
    assert [each.node for each in candidates([NODE, OTHER], WANTED, sent={"a": 1})] == ["b", "a"]
    assert candidates([NODE], WANTED, sent={"a": 5}) == []
