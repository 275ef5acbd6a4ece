"""The images of templates that are unused longest go when all take too much of a node's disk."""

import asyncio
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.node.stock import templates as stock
from runner.node.stock.templates import SPARE, WANTED_S, TemplateImages, unused
from runner.sandbox.engine.template_image import TemplateImage
from runner.store import templates
from runner.words.errors import ImageMissing, NodeStarved
from runner.words.ids import new_id

NOW = 10_000.0


def image(size: int) -> TemplateImage:
    """Return the image of a template."""
    return TemplateImage("", new_id(), new_id(), "node", size)


def test_those_unused_longest_go_first() -> None:
    """One that no process has wanted since it began goes before them."""
    old, unknown, recent = made = [image(10), image(20), image(30)]
    used = {old.template: NOW - 3 * WANTED_S, recent.template: NOW - 2 * WANTED_S}
    assert unused(made, used, now=NOW) == [unknown, old, recent]


def test_one_that_was_wanted_just_now_stays() -> None:
    """Its sandbox may not have it yet, so Docker would remove it."""
    made = [image(10)]
    assert unused(made, {made[0].template: NOW - WANTED_S + 1}, now=NOW) == []
    assert unused(made, {made[0].template: NOW - WANTED_S}, now=NOW) == made


class Disk:
    """A disk on which images of templates are, as far as `TemplateImages` asks about them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *sizes: int) -> None:
        self.made = [image(size) for size in sizes]
        self.free = 0
        self.in_use: list[TemplateImage] = []
        self.holds_images = True
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

    async def remove_template(self, gone: TemplateImage) -> bool:
        """Free its bytes, unless a sandbox has it."""
        await asyncio.sleep(0)
        if gone in self.in_use:
            return False
        self.made.remove(gone)
        self.free += gone.bytes if self.holds_images else 0
        return True

    async def find_template(self, _name: str, template: Any, _owner: Any) -> TemplateImage:
        """Return it if it is there."""
        for each in self.made:
            if each.template == template:
                return each
        raise ImageMissing("missing")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path / "templates", monkeypatch, 100, 200, 300)


async def has_room(disk: Disk, needed: int) -> None:
    """Return if an image could be made that takes so much."""
    async with disk.images._room(needed, "tools"):
        pass


@pytest.mark.parametrize(("most", "left"), [(600, 3), (599, 2), (300, 1), (299, 0)])
async def test_they_go_until_the_others_fit(disk: Disk, most: int, left: int) -> None:
    first, second, third = disk.made
    now = time.monotonic()
    for each, ago in ((first, 4), (second, 3), (third, 2)):
        disk.images._used[each.template] = now - ago * WANTED_S
    object.__setattr__(disk.images, "most_bytes", most)
    await disk.images._evict(disk.made[:], spare=0)
    assert disk.made == [first, second, third][3 - left :]


async def test_unused_ones_go_when_the_disk_is_nearly_full(disk: Disk) -> None:
    """Just as many as it needs; the control has room enough."""
    first, _, last = disk.made
    disk.free = SPARE
    await disk.images._evict(disk.made[:], spare=SPARE)
    assert len(disk.made) == 3
    disk.free = SPARE - 250
    await disk.images._evict(disk.made[:], spare=SPARE)
    assert disk.made == [last]
    assert first not in disk.made


async def test_no_more_go_than_the_disk_lacks_if_they_are_on_another_one(disk: Disk) -> None:
    """The control: if they are on this one, as many go as it needs."""
    *_, last = disk.made
    disk.holds_images = False
    disk.free = SPARE - 250
    await disk.images._evict(disk.made[:], spare=SPARE)
    assert disk.made == [last]
    disk.holds_images = True
    await disk.images._evict(disk.made[:], spare=SPARE)
    assert disk.made == []


async def test_one_that_a_sandbox_has_stays_and_another_goes(disk: Disk) -> None:
    """The node still tells that it has it, and executions of it come here."""
    first, second, _ = disk.made
    disk.images._held.update(each.template for each in disk.made)
    disk.in_use = [first]
    await has_room(disk, 150)
    assert first in disk.made
    assert second not in disk.made
    assert first.template in disk.images.held
    assert second.template not in disk.images.held


async def test_an_image_is_made_only_where_it_has_room(disk: Disk) -> None:
    """For one that has none, others' images do not go in vain."""
    disk.free = 50
    await has_room(disk, 150)
    assert len(disk.made) == 2
    with pytest.raises(NodeStarved, match="no room for the image of the template tools"):
        await has_room(disk, 10_000)
    assert len(disk.made) == 2


async def test_images_that_are_made_at_once_share_the_room(disk: Disk) -> None:
    """The second one waits for the first. It is not refused: it has room afterwards."""
    disk.made.clear()
    disk.free = 100
    second = asyncio.create_task(has_room(disk, 60))
    async with disk.images._room(70, "first"):
        assert not (await asyncio.wait({second}, timeout=0.2))[0]
    async with asyncio.timeout(5):
        await second
    # The control: there is room for both.
    async with disk.images._room(40, "first"):
        async with asyncio.timeout(5):
            await has_room(disk, 60)


async def test_one_that_is_in_use_now_is_not_waited_for(disk: Disk) -> None:
    """Whoever makes an image has its turn. Two who waited for each other's would wait for ever."""
    first, *_ = disk.made
    async with disk.images._turn(first.template), asyncio.timeout(5):
        await has_room(disk, 1)
    assert first in disk.made


async def test_the_base_of_an_image_stays_while_that_is_made(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was wanted for that alone. Others make room."""
    base, *others = disk.made
    content: Any = SimpleNamespace(
        owner=base.tenant, base_template=base.template, base_owner=base.tenant, base_image="python",
        archive_bytes=1, sha256="", sealed_key=b"", object_key="", user=None,
    )  # fmt: skip
    made: list[Any] = []

    async def content_of(*_: Any) -> Any:
        return content

    async def key(*_: Any, **__: Any) -> str:
        return ""

    async def written(*_: Any) -> None:
        made.append(await disk.find_template("", base.template, base.tenant))

    async def added(*_: Any, **__: Any) -> TemplateImage:
        return image(1)

    monkeypatch.setattr(templates, "content", content_of)
    monkeypatch.setattr(stock, "_write", written)
    monkeypatch.setattr(stock, "opened", lambda *_, **__: None)
    monkeypatch.setattr(stock, "HOLES", 250)
    monkeypatch.setattr(disk, "add_template", added, raising=False)
    for name, part in (
        ("database", SimpleNamespace(tenant=lambda _: nullcontext())),
        ("vault", SimpleNamespace(unseal=key)),
        ("objects", SimpleNamespace(read=lambda _: None)),
    ):
        object.__setattr__(disk.images, name, part)
    await disk.images._image(base.tenant, new_id(), "upon")
    assert made == [base]
    assert len([each for each in others if each in disk.made]) < len(others)
