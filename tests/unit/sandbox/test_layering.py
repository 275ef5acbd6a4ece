"""A process of its own writes a template's image, and tells what became of it."""

import asyncio
import errno
import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from runner.sandbox.engine.layering import ImageOrder, write_aside
from runner.sandbox.engine.template_image import BYTES_LABEL
from runner.words.errors import Invalid

BASE = {
    "RootFS": {"Layers": ["sha256:" + "0" * 64]},
    "Architecture": "amd64",
    "Os": "linux",
    "Config": {"User": "65534:65534"},
}


def order(folder: Path, *names: str) -> ImageOrder:
    """Return the order of an image of an archive that has files of these names."""
    archive = folder / "content"
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as target:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 3
            target.addfile(entry, io.BytesIO(b"abc"))
    return ImageOrder(
        archive=str(archive),
        image=str(folder / "image"),
        most=2**20,
        user="agent",
        home="/home/agent",
        moved=False,
        base=BASE,
        tag="template:1",
        labels={"whose": "tenant"},
    )


async def test_the_image_is_written_and_nothing_else(tmp_path: Path) -> None:
    wanted = order(tmp_path, "srv/a")
    await write_aside(wanted)
    with tarfile.open(wanted.image) as image:
        manifest = json.load(image.extractfile("manifest.json") or io.BytesIO())
        config = json.load(image.extractfile(manifest[0]["Config"]) or io.BytesIO())
        with tarfile.open(fileobj=image.extractfile("layer.tar")) as layer:
            assert layer.getnames() == ["srv/a"]
    assert manifest[0]["RepoTags"] == ["template:1"]
    assert config["config"]["Labels"].keys() == {"whose", BYTES_LABEL}
    left = await asyncio.to_thread(lambda: {each.name for each in tmp_path.iterdir()})
    assert left == {"content", "image"}


async def test_a_refusal_says_what_was_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"none may be called '\.wh\.\.wh\.x'") as refused:
        await write_aside(order(tmp_path, "srv/.wh..wh.x"))
    assert refused.value.field == "steps"


async def test_an_error_of_the_host_keeps_its_number(tmp_path: Path) -> None:
    """By that, a disk that is full is told from a defect of ours."""
    wanted = replace(order(tmp_path), image=str(tmp_path / "none" / "image"))
    with pytest.raises(OSError, match="No such file") as failed:
        await write_aside(wanted)
    assert failed.value.errno == errno.ENOENT


async def test_it_knows_no_secret_of_the_node_and_ends_with_its_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for an archive that never comes."""
    monkeypatch.setenv("RUNNER_DATABASE_WORKER_URL", "postgresql://worker:secret@host/")
    wanted = order(tmp_path)
    wanted = replace(wanted, archive=f"{wanted.archive}.none-yet")
    os.mkfifo(wanted.archive)
    writing = asyncio.create_task(write_aside(wanted))
    async with asyncio.timeout(60):
        while not (found := [each for each in children() if each.nice() > 0]):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    assert "RUNNER_DATABASE_WORKER_URL" not in found[0].environ()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert not found[0].is_running()


def children() -> list[psutil.Process]:
    """Return this process's children that write images."""
    return [each for each in psutil.Process().children() if "layering" in " ".join(each.cmdline())]
