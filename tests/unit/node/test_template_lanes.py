"""A tenant that wants many templates at once keeps no other tenant waiting for all of them."""

import asyncio
from typing import Any, ClassVar, cast
from uuid import UUID

from runner.node.stock.templates import AT_ONCE, TemplateImages
from runner.sandbox.engine.images import BuiltImage
from runner.words.errors import ImageMissing
from runner.words.ids import new_id
from runner.words.templates import image_of

GREEDY, MODEST = new_id(), new_id()


class _None:
    """Images of a node that has none."""

    async def find_template(self, name: str, *_: UUID) -> BuiltImage:
        raise ImageMissing(name)


class _Begun(TemplateImages):
    """Tells for whom it makes images, and finishes none."""

    begun: ClassVar[list[UUID]] = []

    async def _owner(self, tenant: UUID, *_: object) -> UUID:
        return tenant

    async def _make(self, tenant: UUID, *_: object) -> BuiltImage:
        never: asyncio.Future[BuiltImage] = asyncio.get_running_loop().create_future()
        async with self._making:
            self.begun.append(tenant)
            return await never


async def test_a_tenants_images_are_made_one_at_a_time() -> None:
    nothing = cast(Any, None)
    images = _Begun(nothing, nothing, nothing, cast(Any, _None()), "node", nothing, 0)
    wanted = [*[GREEDY] * (3 * AT_ONCE), MODEST]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(images.require(tenant, image_of("x", new_id()))) for tenant in wanted
        ]
        while len(images.begun) < AT_ONCE:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0)
        assert images.begun == [GREEDY, MODEST]
        for task in tasks:
            task.cancel()
