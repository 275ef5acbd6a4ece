"""What a template's sandboxes begin with in their home, for executions and for those that live."""

import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runner.sandbox.drive import use
from runner.sandbox.engine.layers import SKELETON
from runner.sandbox.engine.template_image import TemplateImage
from runner.sandbox.guest.sandbox import Sandbox
from runner.words.errors import LaunchFailed, SandboxFault
from runner.words.execution import InputFile, Program
from runner.words.ids import new_id
from runner.words.living import OutputPiece
from runner.words.sandbox import Isolation
from runner.words.templates import image_of
from tests.support import sandboxes
from tests.support.sandboxes import Bench

SECRET = "5" * 64
LARGE = 6 * 2**20
FILES = {"greeting": b"hello\n", "sub/deep": b"deep\n", ".local/lib/x": b"a tool's\n"}
SAYS_OTHER = b"#!/bin/sh\necho another python\n"


def entry(name: str, **fields: object) -> tarfile.TarInfo:
    """Return an entry of an archive."""
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def content() -> bytes:
    """Return the archive of a template: its home, and a Python of its own that is not at home."""
    target = io.BytesIO()
    home = SKELETON.removeprefix("/")
    with tarfile.open(fileobj=target, mode="w") as archive:
        for folder, mode in (("", 0o755), ("/sub", 0o555), ("/.local", 0o755)):
            archive.addfile(entry(f"{home}{folder}", type=tarfile.DIRTYPE, mode=mode))
        for name, text in FILES.items():
            archive.addfile(entry(f"{home}/{name}", size=len(text), mode=0o644), io.BytesIO(text))
        archive.addfile(
            entry(f"{home}/link", type=tarfile.SYMTYPE, linkname="greeting", mode=0o777)
        )
        archive.addfile(entry(f"{home}/large", size=LARGE, mode=0o644), io.BytesIO(bytes(LARGE)))
        python = entry("srv/bin/python3", size=len(SAYS_OTHER), mode=0o755)
        archive.addfile(python, io.BytesIO(SAYS_OTHER))
    return target.getvalue()


@pytest.fixture(params=list(Isolation))
async def templates(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Return a bench for the sandboxes of a template, in each isolation."""
    template = new_id()
    async with sandboxes.bench(tmp_path, isolation=request.param) as made:
        images, node = made.launcher.maker.images, made.launcher.site.node
        image = TemplateImage(image_of("homely", template), template, new_id(), node)
        archive = tmp_path / "content"
        archive.write_bytes(content())
        await images.add_template(image, await images.find("python"), archive, most=2**24)
        try:
            made.image = image.name
            made.limits = made.within(memory_mb=512, timeout_s=60)
            yield made
        finally:
            await images.remove_template(image)


async def test_a_program_finds_them_as_its_own(templates: Bench) -> None:
    """What it changes is its work, and so is what it adds; the rest is not."""
    ran = await templates.bash(
        "cat greeting sub/deep link .local/lib/x; test -O greeting && test -O sub/deep; "
        "test ! -w sub; echo more >> greeting; touch made"
    )
    assert (ran.stdout, ran.ending.exit_code) == (b"hello\ndeep\nhello\na tool's\n", 0)
    assert ran.files == {"greeting": b"hello\nmore\n", "made": b""}
    assert ran.collected.refused == ()


async def test_an_input_file_takes_the_place_of_one(templates: Bench) -> None:
    files = [InputFile("greeting", b"mine\n"), InputFile("sub/new", b"")]
    ran = await templates.bash("cat greeting", files=files[:1])
    assert (ran.stdout, ran.files) == (b"mine\n", {})
    async with templates.sandbox() as sandbox:
        with pytest.raises(SandboxFault, match="EACCES"):
            await sandbox.upload(files)


async def test_the_next_run_of_a_sandbox_begins_with_them_anew(templates: Bench) -> None:
    bounds = templates.limits.bounds
    async with templates.sandbox() as sandbox:
        for _ in range(2):
            changing = Program(("bash", "-c", "cat greeting; echo x > greeting; rm -r large"), {})
            ran = await use(sandbox, changing, bounds, again=True)
            assert ran.stdout == b"hello\n"
            assert await sandbox.clean() == []


async def test_a_home_that_does_not_fit_is_told(templates: Bench) -> None:
    """The program does not start then, and the sandbox does not live."""
    ran = await templates.run(("true",), disk_mb=4)
    assert ran.ending.not_started == "ENOSPC"
    async with templates.sandbox(disk_mb=4) as sandbox:
        with pytest.raises(LaunchFailed, match=r"\(ENOSPC\); does the sandbox's disk have room"):
            await sandbox.live(SECRET, alone_s=60)


@pytest.mark.parametrize("ahead", [False, True], ids=["at once", "made ready before"])
async def test_one_that_lives_has_them(templates: Bench, *, ahead: bool) -> None:
    async with templates.sandbox() as sandbox:
        if ahead:
            await sandbox.prepare()
        assert await said(sandbox, "cat greeting sub/deep") == b"hello\ndeep\n"


async def said(sandbox: Sandbox, line: str) -> bytes:
    """Let a sandbox live, and return what a command in it writes."""
    lives = await sandbox.live(SECRET, alone_s=60)
    async with lives.start_attached(Program(("bash", "-c", line), {})) as (process, attached):
        wrote = b"".join([piece.data async for piece in attached if isinstance(piece, OutputPiece)])
        assert (await process.exited).exit_code == 0
    return wrote


async def test_another_python_before_ours_runs_the_program(templates: Bench) -> None:
    """The interpreter that is loaded is not taken for it. The control lacks that folder."""
    file = [InputFile("main.py", b"print('ours')\n")]
    async with templates.sandbox() as one, templates.sandbox() as two:
        for sandbox, path, wrote in (
            (one, "/usr/bin:/bin", b"ours\n"),
            (two, "/srv/bin:/usr/bin:/bin", b"another python\n"),
        ):
            program = Program(("python3", "main.py"), {"PATH": path}, interpret=True)
            ran = await use(sandbox, program, templates.limits.bounds, files=file)
            assert ran.stdout == wrote
