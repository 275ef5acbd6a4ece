"""Images of templates on a node: whose one is, is read from its label and compared."""

import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from runner.base.settings import Settings
from runner.sandbox.engine.images import Images
from runner.sandbox.engine.template_image import TemplateImage
from runner.sandbox.launch import Launcher
from runner.words.errors import ImageMissing
from runner.words.ids import new_id
from runner.words.templates import image_of
from tests.support.deployment import state_folder


@asynccontextmanager
async def images() -> AsyncIterator[Images]:
    """Return the images of this host."""
    with state_folder() as folder:
        settings = Settings(state_dir=folder)
        async with Launcher.open(settings, node=folder.name, instance="only") as opened:
            yield opened.maker.images


async def add(
    found: Images, folder: Path, template: UUID, tenant: UUID, node: str
) -> TemplateImage:
    """Make the image of a template that says whose it is by a file."""
    archive = folder / "content"
    with tarfile.open(archive, "w") as target:
        entry = tarfile.TarInfo("srv/whose")
        content = str(tenant).encode()
        entry.size = len(content)
        target.addfile(entry, io.BytesIO(content))
    made = TemplateImage(image_of("x", template), template, tenant, node)
    await found.add_template(made, await found.find("python"), archive, most=2**20)
    return made


async def test_a_template_image_counts_only_for_its_own_tenant(image: None, tmp_path: Path) -> None:
    """A forged one, with a template's id and another tenant's label, is not taken for it.

    The control: by the id alone, the forged one is found, as long as it is the only one.
    """
    template, owner, forger = new_id(), new_id(), new_id()
    name = image_of("x", template)
    async with images() as found:
        forged = await add(found, tmp_path, template, forger, f"forger-{template}")
        try:
            assert (await found.find_template(name, template)).digest
            with pytest.raises(ImageMissing):
                await found.find_template(name, template, owner)
            true = await add(found, tmp_path, template, owner, f"owner-{template}")
            try:
                own = await found.find_template(name, template, owner)
                other = await found.find_template(name, template, forger)
                assert own.digest != other.digest
                with pytest.raises(ImageMissing, match="several tenants"):
                    await found.find_template(name, template)
            finally:
                await found.remove_template(true)
        finally:
            await found.remove_template(forged)


async def test_an_image_tells_what_it_takes_beyond_its_base(image: None, tmp_path: Path) -> None:
    template, node = new_id(), f"node-{new_id()}"
    async with images() as found:
        made = await add(found, tmp_path, template, new_id(), node)
        try:
            (listed,) = await found.templates(node)
            assert 0 < listed.bytes < 2**20
        finally:
            await found.remove_template(made)
        assert await found.templates(node) == []
