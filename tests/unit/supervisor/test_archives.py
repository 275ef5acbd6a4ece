"""Whole folders go in and out as tar archives, as fast as the other end keeps up."""

import asyncio
import io
import os
import tarfile
from pathlib import Path

import pytest

from runner.protocol.commands import Command
from runner.protocol.living import WINDOW
from runner.protocol.living_commands import Cancel, EndOfBytes, PackFolder, UnpackFolder
from runner.protocol.living_events import Archived, Done, Failed, FileFound
from tests.support.living import WITHIN_S, Node, Sandbox

FINE = Archived(exit_code=0, signal=None, said="")


async def packed(node: Node, path: str) -> tuple[bytes, Archived]:
    """Return a folder's archive, and how tar ended."""
    stream = node.open(PackFolder(path))
    assert (await node.expect(stream, FileFound)).entry.kind == "folder"
    got, ended = await node.until(stream, Archived)
    return got[b"D"], ended


async def unpacked(node: Node, path: str, archive: bytes) -> Archived:
    """Send an archive, and return how tar ended."""
    stream = node.open(UnpackFolder(path))
    await node.send(stream, archive)
    node.say(stream, EndOfBytes())
    await node.expect(stream, FileFound)
    return await node.expect(stream, Archived)


async def test_a_folder_goes_out_and_in_again(node: Node, sandbox: Sandbox) -> None:
    """With names that are no text, links, holes and rights, and more than a window of it."""
    folder = sandbox.workspace / "from"
    (folder / "empty").mkdir(parents=True)
    (folder / "large").write_bytes(os.urandom(3 * WINDOW))
    (folder / "tool").write_bytes(b"#!")
    (folder / "tool").chmod(0o750)
    (folder / os.fsdecode(b"\xff\xfe")).write_bytes(b"raw")
    (folder / "link").symlink_to("/nowhere")
    with (folder / "holes").open("wb") as file:
        file.truncate(2**30)
    archive, ended = await packed(node, "from")
    assert ended == FINE
    assert len(archive) < 5 * WINDOW
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        assert {each.uid for each in read} == {0}
    (sandbox.workspace / "to").mkdir()
    assert await unpacked(node, "to", archive) == FINE
    to = sandbox.workspace / "to"
    assert {each.name for each in to.iterdir()} == {each.name for each in folder.iterdir()}
    assert (to / "large").read_bytes() == (folder / "large").read_bytes()
    assert (to / "tool").stat().st_mode & 0o777 == 0o750
    assert (to / "link").readlink() == Path("/nowhere")
    assert (to / "holes").stat().st_size == 2**30


async def test_tar_waits_for_a_reader_that_takes_nothing(node: Node, sandbox: Sandbox) -> None:
    """Nothing is lost and nothing gathered, and others are answered meanwhile."""
    content = os.urandom(8 * WINDOW)
    (sandbox.workspace / "large").write_bytes(content)
    node.grants = False
    slow = node.open(PackFolder("."))
    await node.expect(slow, FileFound)
    first = await node.next_of(slow)
    await node.ping()
    node.grants = True
    node.grant(slow, WINDOW)
    got, ended = await node.until(slow, Archived)
    assert ended == FINE
    with tarfile.open(fileobj=io.BytesIO(first.payload + got[b"D"])) as read:  # type: ignore[union-attr]
        inner = read.extractfile("./large")
        assert inner is not None
        assert inner.read() == content


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (PackFolder("missing"), "ENOENT"),
        (UnpackFolder("missing"), "ENOENT"),
        (PackFolder("file"), "ENOTDIR"),
        (UnpackFolder("file"), "ENOTDIR"),
        (PackFolder("/proc/self/fd"), "EACCES"),
        (PackFolder("proc"), "EACCES"),
    ],
)
async def test_what_is_no_folder_of_the_clients_is_refused(
    node: Node, sandbox: Sandbox, command: Command, why: str
) -> None:
    (sandbox.workspace / "file").write_bytes(b"")
    (sandbox.workspace / "proc").symlink_to("/proc/self")
    stream = node.open(command)
    assert (await node.expect(stream, Failed)).error == why


async def test_what_is_no_archive_is_told(node: Node, sandbox: Sandbox) -> None:
    """The files that a broken archive held before it broke stay."""
    for wrong in (b"", b"not an archive" * 1000, b"\x1f\x8b" + bytes(2000)):
        ended = await unpacked(node, ".", wrong)
        assert ended.exit_code == 2
        assert "tar" in ended.said
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.size = 100_000
            made.addfile(info, io.BytesIO(b"x" * 100_000))
    ended = await unpacked(node, ".", buffer.getvalue()[:150_000])
    assert (ended.exit_code, "Unexpected EOF" in ended.said) == (2, True)
    assert (sandbox.workspace / "a").stat().st_size == 100_000


async def test_an_archive_does_not_reach_out_of_its_folder(node: Node, sandbox: Sandbox) -> None:
    """Tar runs as any program there, so this is no wall: it keeps careless archives in place."""
    (sandbox.workspace / "in").mkdir()
    (sandbox.workspace / "secret").write_bytes(b"ours")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        out = tarfile.TarInfo("out")
        out.type, out.linkname = tarfile.SYMTYPE, ".."
        made.addfile(out)
        for name in ("../secret", "out/secret", str(sandbox.workspace / "secret")):
            info = tarfile.TarInfo(name)
            info.size = 6
            made.addfile(info, io.BytesIO(b"theirs"))
    assert (await unpacked(node, "in", buffer.getvalue())).exit_code == 2
    assert (sandbox.workspace / "secret").read_bytes() == b"ours"


async def test_a_cancelled_archive_leaves_no_process(node: Node, sandbox: Sandbox) -> None:
    """Nor does one whose node goes away."""
    (sandbox.workspace / "large").write_bytes(os.urandom(4 * WINDOW))
    node.grants = False
    cancelled, unfinished = node.open(PackFolder(".")), node.open(UnpackFolder("."))
    await node.expect(cancelled, FileFound)
    await node.expect(unfinished, FileFound)
    pids = tars(sandbox)
    assert len(pids) == 2
    node.say(cancelled, Cancel())
    await node.until(cancelled, Done)
    node.writer.close()
    async with asyncio.timeout(WITHIN_S):
        while there(pids):  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.05)


def there(pids: list[str]) -> bool:
    """Return whether one of these processes is still there."""
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


def tars(sandbox: Sandbox) -> list[str]:
    """Return the pids of the supervisor's children."""
    assert sandbox.process is not None
    pid = sandbox.process.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
