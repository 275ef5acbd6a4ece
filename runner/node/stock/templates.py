"""Images of tenants' templates on this node: made when a sandbox needs one, removed after it.

A template's content is in the object store, so any node can make its image. The content was packed
by a sandbox in which somebody else was root: `engine.layers` makes it harmless.
"""

import asyncio
import hashlib
import math
import shutil
import tempfile
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from uuid import UUID
from weakref import WeakValueDictionary

from runner.node.stock.sandboxes import Need, Sandboxes
from runner.sandbox.engine.images import BuiltImage, Images
from runner.sandbox.engine.template_image import TemplateImage
from runner.sandbox.guest.sandbox import Sandbox
from runner.secrets.envelope import Unopened, template_of
from runner.secrets.streams import opened
from runner.secrets.vault import Vault
from runner.store import templates
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.store.templates import TemplateContent
from runner.words.errors import ImageMissing, NodeStarved, TemplateMissing
from runner.words.templates import image_of, template_in
from runner.words.text import counted

HOLES = 64 * 2**20
"""How many bytes more than its archive a template's files may have: holes are written, too."""
AT_ONCE = 2
"""How many images are made at once."""
ABANDONED_S = 3600.0
"""Seconds after which nothing is done any more in a folder where nothing was begun meanwhile."""
MOST_TOLD = 1000
"""How many of its templates a node tells of, for sandboxes that would rather be on it."""
TIMES = 3
"""How many times its archive's bytes the making of an image takes of this disk."""
SPARE = 5 * 2**30
"""Free bytes of this disk below which images that nobody wants go, however few they are. Whoever
runs the node is warned at the same number (`RunnerDiskShort`)."""
WANTED_S = 600.0
"""For how long an image stays after it was wanted."""


@dataclass(frozen=True, slots=True)
class _Promise:
    """Bytes of the disk for an image that is being made."""

    bytes: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class TemplateImages:
    """The templates' images of one node."""

    SWEEP_S: ClassVar = 300.0
    """How often to look for images that are to go."""
    database: Database
    objects: ObjectStore
    vault: Vault
    images: Images
    node: str
    folder: Path
    """The folder of archives while an image is made of them."""
    most_bytes: int
    """The bytes that images of templates may take together, before the longest unused go."""
    _used: dict[UUID, float] = field(default_factory=dict)
    """The time at which each was last wanted, by this process's clock."""
    _turns: WeakValueDictionary[UUID, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """For each template whose image is made or removed now, the turn to do so."""
    _lanes: WeakValueDictionary[UUID, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """For each tenant that waits for an image, its turn."""
    _held: set[UUID] = field(default_factory=set)
    _making: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _dividing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _promised: list[_Promise] = field(default_factory=list)

    @property
    def held(self) -> tuple[UUID, ...]:
        """The templates of which this node has an image, as far as it knows."""
        return tuple(sorted(self._held))[:MOST_TOLD]

    async def require(self, tenant: UUID, image: str) -> None:
        """Make the image if it is a template's that this node has none of.

        Raises TemplateMissing if this tenant has no such template, even if the node still has the
        image of one that was deleted; ImageMissing if its base is missing, Invalid if it holds what
        no template may, KeyUnavailable and StoreUnavailable.
        """
        template = template_in(image)
        if template is None:
            return
        owner = await self._owner(tenant, template, image)
        self._used[template] = time.monotonic()
        try:
            await self.images.find_template(image, template, owner)
            self._held.add(template)
        except ImageMissing:
            # One at a time for each tenant: others do not wait for all that it has wanted.
            async with self._lanes.setdefault(tenant, asyncio.Lock()):
                await self._image(owner, template, image)

    async def _owner(self, tenant: UUID, template: UUID, name: str) -> UUID:
        """Return whose template it is: the tenant's, or one that the operator made everybody's."""
        async with self.database.tenant(tenant) as tx:
            content = await templates.content(tx, template)
        if content is None:
            raise TemplateMissing(f"the template {name} was deleted, or was never built")
        return content.owner

    async def _image(self, tenant: UUID, template: UUID, name: str) -> BuiltImage:
        async with self._turn(template):
            try:
                found = await self.images.find_template(name, template, tenant)
            except ImageMissing:
                found = await self._make(tenant, template, name)
            self._held.add(template)
            # Also of one that is only below another: it must be there when that one is made.
            self._used[template] = time.monotonic()
            return found

    async def _make(self, tenant: UUID, template: UUID, name: str) -> BuiltImage:
        async with self.database.tenant(tenant) as tx:
            content = await templates.content(tx, template)
            if content is None or content.owner != tenant:
                raise TemplateMissing(f"the template {name} was deleted, or was never built")
            bound_to = template_of(tenant, template)
            key = await self.vault.unseal(tx, tenant, content.sealed_key, bound_to=bound_to)
        if content.base_template is None or content.base_owner is None:
            base = await self.images.find(content.base_image)
        else:
            # What it is called does not matter: an image is found by its template's id.
            below = image_of("base", content.base_template)
            base = await self._image(content.base_owner, content.base_template, below)
        made = TemplateImage(name, template, tenant, self.node, user=content.user)
        stored = self.objects.read(content.object_key)
        chunks = opened(stored, bytes.fromhex(key), bound_to=bound_to)
        needed = TIMES * content.archive_bytes + HOLES
        async with self._making, self._room(needed, name), self._scratch() as scratch:
            archive = scratch / "content"
            await _write(chunks, archive, content, name)
            most = content.archive_bytes + HOLES
            return await self.images.add_template(made, base, archive, most=most)

    @asynccontextmanager
    async def _room(self, needed: int, name: str) -> AsyncIterator[None]:
        """Have so many bytes of this disk inside the context, beside what others were promised.

        Raises NodeStarved if they cannot be freed.
        """
        async with self._dividing:
            while not await self._freed(needed + sum(each.bytes for each in self._promised)):
                if not self._promised:
                    raise NodeStarved(
                        f"the disk of this node has no room for the image of the template {name}: "
                        f"making it takes {counted(needed, 'byte')}"
                    )
                # That one may have written all that it was promised already.
                await self._promised[0].ended.wait()
            self._promised.append(promise := _Promise(needed))
        try:
            yield
        finally:
            self._promised.remove(promise)
            promise.ended.set()

    async def _freed(self, spare: int) -> bool:
        """Return whether so many bytes of this disk are free, after images have gone for them."""
        if (free := await asyncio.to_thread(self._free)) >= spare:
            return True
        made = await self.images.templates(self.node)
        if (
            free + sum(each.bytes for each in unused(made, self._used, now=time.monotonic()))
            < spare
        ):
            return False  # Others would lose their images in vain.
        await self._evict(made, spare=spare)
        return await asyncio.to_thread(self._free) >= spare

    async def _evict(self, made: Sequence[TemplateImage], *, spare: int) -> None:
        """Remove those unused longest until the others take no more than they may together.

        And until `spare` bytes of this disk are free: how many one frees is known once it is gone.
        """
        before = await asyncio.to_thread(self._free)
        taken = kept = sum(each.bytes for each in made)
        for each in unused(made, self._used, now=time.monotonic()):
            free = await asyncio.to_thread(self._free)
            # Docker may have its images on another disk.
            in_vain = free <= before and kept - taken >= spare - before
            if taken <= self.most_bytes and (free >= spare or in_vain):
                return
            turn = self._turns.get(each.template)
            # Nobody waits for another's turn who has one: they could wait for each other.
            if (turn is None or not turn.locked()) and await self._remove(each):
                taken -= each.bytes

    def _turn(self, template: UUID) -> asyncio.Lock:
        return self._turns.setdefault(template, asyncio.Lock())

    def _free(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return shutil.disk_usage(self.folder).free

    @asynccontextmanager
    async def _scratch(self) -> AsyncIterator[Path]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield scratch
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch)

    async def sweep(self) -> None:
        """Remove images of templates that were deleted, and what a killed process has left.

        If those that stay take too much, or the disk is nearly full, remove those that were unused
        longest, and are not in use.
        """
        await asyncio.to_thread(remove_abandoned, self.folder)
        kept = []
        for made in await self.images.templates(self.node):
            async with self.database.tenant(made.tenant) as tx:
                gone = await templates.content(tx, made.template) is None
            if gone:
                await self._remove(made)
            else:
                self._held.add(made.template)
                kept.append(made)
        await self._evict(kept, spare=SPARE)

    async def _remove(self, made: TemplateImage) -> bool:
        """Remove an image, unless something has it; return whether it is gone.

        Who wants it again has it made anew.
        """
        async with self._turn(made.template):
            gone = await self.images.remove_template(made)
            if gone:
                self._held.discard(made.template)
                self._used.pop(made.template, None)
        return gone


class SandboxesOfTemplates:
    """Implements `Sandboxes` in front of others: makes the image that a template's sandbox needs.

    Sandboxes of a template wait in the stock like those of any image, and belong to nobody. A
    tenant gets one only if the template is its own or everybody's, which is asked each time.
    """

    def __init__(self, others: Sandboxes, images: TemplateImages) -> None:
        self._others = others
        self._images = images

    async def claim(self, wanted: Need) -> Sandbox:
        """Return a sandbox of the others, once this node has its image."""
        await self._images.require(UUID(wanted.order.tenant), wanted.order.spec.image)
        return await self._others.claim(wanted)

    async def dispose(self, sandbox: Sandbox, *, at_once: bool = False) -> None:
        """Give it back to the others."""
        await self._others.dispose(sandbox, at_once=at_once)


def unused(
    made: Sequence[TemplateImage], used: Mapping[UUID, float], *, now: float
) -> list[TemplateImage]:
    """Return the images that may go, those first that were unused longest.

    One that was wanted just now stays: its sandbox may not have been made yet.
    """
    wanted_at = {each.template: used.get(each.template, -math.inf) for each in made}
    idle = [each for each in made if now - wanted_at[each.template] >= WANTED_S]
    return sorted(idle, key=lambda each: wanted_at[each.template])


def remove_abandoned(folder: Path) -> None:
    """Remove archives of which nobody makes an image any more: they are not sealed."""
    for scratch in folder.glob("*"):
        # One that is gone meanwhile was in use until now.
        with suppress(FileNotFoundError):
            if time.time() - scratch.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(scratch)


async def _write(
    chunks: AsyncIterable[bytes], archive: Path, content: TemplateContent, name: str
) -> None:
    """Write the archive. Raises TemplateMissing if it is not the one that was kept."""
    digest = hashlib.sha256()
    try:
        with archive.open("wb") as file:
            async for chunk in chunks:
                digest.update(chunk)
                await asyncio.to_thread(file.write, chunk)
    except Unopened:
        raise _damaged(name) from None
    if digest.hexdigest() != content.sha256:
        raise _damaged(name)


def _damaged(name: str) -> TemplateMissing:
    return TemplateMissing(
        f"the template {name} is damaged: its object has changed since it was written. "
        "Build it again"
    )
