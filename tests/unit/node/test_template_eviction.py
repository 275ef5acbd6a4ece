"""The images of templates that are unused longest go when all take too much of a node's disk."""

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from runner.node.stock.templates import SPARE, WANTED_S, TemplateImages, beyond
from runner.sandbox.engine.template_image import TemplateImage
from runner.words.errors import NodeStarved
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


class Disk:
    """A disk on which images of templates are, as far as `TemplateImages` asks about them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *sizes: int) -> None:
        self.made = [image(size) for size in sizes]
        self.free = 0
        nothing: Any = None
        images: Any = self
        self.images = TemplateImages(
            database=nothing, objects=nothing, vault=nothing, images=images, node="node",
            folder=folder, most_bytes=10**12,
        )  # fmt: skip
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=self.free))

    async def templates(self, _: str) -> list[TemplateImage]:
        """Return those that are there."""
        return list(self.made)

    async def remove_template(self, gone: TemplateImage) -> None:
        """Free its bytes."""
        self.made.remove(gone)
        self.free += gone.bytes


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path / "templates", monkeypatch, 100, 200, 300)


async def test_unused_ones_go_when_the_disk_is_nearly_full(disk: Disk) -> None:
    """Just as many as it needs; the control has room enough."""
    first, _, last = disk.made
    disk.free = SPARE
    await disk.images._remove_beyond(disk.made[:], spare=SPARE)
    assert len(disk.made) == 3
    disk.free = SPARE - 250
    await disk.images._remove_beyond(disk.made[:], spare=SPARE)
    assert disk.made == [last]
    assert first not in disk.made


async def test_an_image_is_made_only_where_it_has_room(disk: Disk) -> None:
    disk.free = 50
    await disk.images._require_room(150, "tools")
    assert len(disk.made) == 2
    with pytest.raises(NodeStarved, match="no room for the image of the template tools"):
        await disk.images._require_room(10_000, "tools")
    assert disk.made == []


async def test_one_that_is_in_use_now_is_not_waited_for(disk: Disk) -> None:
    """Whoever makes an image has its turn. Two who waited for each other's would wait for ever."""
    first, *_ = disk.made
    async with disk.images._turns[first.template], asyncio.timeout(5):
        await disk.images._require_room(1, "tools")
    assert first in disk.made
