"""The images of templates that are unused longest go when all take too much of a node's disk."""

from uuid import UUID

from runner.node.stock.templates import WANTED_S, beyond
from runner.sandbox.engine.template_image import TemplateImage
from runner.words.ids import new_id

NOW = 10_000.0


def image(size: int) -> TemplateImage:
    """Return the image of a template."""
    return TemplateImage("", new_id(), new_id(), "node", size)


def gone(made: list[TemplateImage], used: dict[UUID, float], most: int) -> list[TemplateImage]:
    return list(beyond(made, used, most, now=NOW))


def test_those_unused_longest_go_until_the_others_fit() -> None:
    """One that no process has wanted since it began goes first."""
    old, unknown, recent = made = [image(10), image(20), image(30)]
    used = {old.template: NOW - 3 * WANTED_S, recent.template: NOW - 2 * WANTED_S}
    assert gone(made, used, 60) == []
    assert gone(made, used, 59) == [unknown]
    assert gone(made, used, 40) == [unknown]
    assert gone(made, used, 39) == [unknown, old]
    assert gone(made, used, 0) == [unknown, old, recent]


def test_one_that_was_wanted_just_now_stays() -> None:
    """Its sandbox may not have it yet, so Docker would remove it."""
    made = [image(10)]
    assert gone(made, {made[0].template: NOW - WANTED_S + 1}, 0) == []
    assert gone(made, {made[0].template: NOW - WANTED_S}, 0) == made
