"""Images are found by what they were made from."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runner.base.settings import Settings
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.images import Images
from runner.words.errors import ImageMissing, SetupError


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """Return a connection to Docker."""
    async with Engine(Settings().docker_url, timeout_s=30, threads=2) as engine:
        yield engine


async def test_a_second_build_is_the_first_ones_image(engine: Engine, tmp_path: Path) -> None:
    """Nothing is built twice, and what was built can be required."""
    images = Images(engine, Settings().recipes_path)
    await images.build("python", Settings())
    said: list[str] = []
    built = await images.build("python", Settings(state_dir=tmp_path), said.append)
    assert said == []
    assert built.current
    assert built.size_bytes < 600 * 10**6
    assert await images.require("python") in {i.digest for i in await images.list_images()}


async def test_builds_at_once_make_one_image(engine: Engine, tmp_path: Path) -> None:
    """Whoever comes second waits, and gets the first one's image."""
    recipes = tmp_path / "recipes"
    shutil.copytree(Settings().recipes_path, recipes)
    with (recipes / "supervisor" / "wire.py").open("a") as file:
        file.write(f"# only of {tmp_path}\n")
    here = Images(engine, recipes)
    builds = [here.build("python", Settings(state_dir=tmp_path)) for _ in range(3)]
    try:
        assert len({built.digest for built in await asyncio.gather(*builds)}) == 1
    finally:
        for image in [each for each in await here.list_images() if each.current]:
            await engine.remove_image(image.digest)


async def test_what_a_recipe_gives_is_asked_once_in_a_while(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many launches at once need one query; older answers are not used."""
    recipes = tmp_path / "recipes"
    shutil.copytree(Settings().recipes_path, recipes)
    images = Images(engine, recipes)
    digest = await images.require("python")
    with (recipes / "supervisor" / "wire.py").open("a") as file:
        file.write("# another\n")
    assert await images.require("python") == digest
    monkeypatch.setattr("runner.sandbox.engine.images.KEPT_S", 0.0)
    with pytest.raises(ImageMissing, match="images build"):
        await images.require("python")


async def test_another_supervisor_is_another_image(engine: Engine, tmp_path: Path) -> None:
    """An image made for an earlier supervisor is not taken for today's."""
    recipes = tmp_path / "recipes"
    shutil.copytree(Settings().recipes_path, recipes)
    with (recipes / "supervisor" / "wire.py").open("a") as file:
        file.write("# another\n")
    with pytest.raises(ImageMissing, match="images build"):
        await Images(engine, recipes).require("python")


@pytest.mark.parametrize("text", ["packages = []", "packages = 'bash'", "=", "unknown = 1"])
async def test_a_broken_recipe_is_a_setup_error(engine: Engine, tmp_path: Path, text: str) -> None:
    """It names the file."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.toml").write_text(text)
    with pytest.raises(SetupError, match=r"recipe\.toml"):
        await Images(engine, tmp_path).build("mine", Settings(state_dir=tmp_path))


@pytest.mark.parametrize("name", ["unknown", "../python", ""])
async def test_a_name_without_a_recipe_is_a_setup_error(
    engine: Engine, tmp_path: Path, name: str
) -> None:
    """This includes a name that leads out of the folder."""
    with pytest.raises(SetupError, match="no recipe"):
        await Images(engine, Settings().recipes_path).build(name, Settings(state_dir=tmp_path))
