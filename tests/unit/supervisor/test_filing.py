"""Files go in and out a piece at a time, whole or not at all, and never those of PID 1."""

import asyncio
import os
import resource
from pathlib import Path

import pytest

from runner.protocol.commands import Command
from runner.protocol.living_commands import (
    Cancel,
    EndOfBytes,
    ListFiles,
    MakeFolder,
    MoveFile,
    ReadFile,
    RemoveFile,
    StatFile,
    WriteFile,
)
from runner.protocol.living_events import Done, Entry, Failed, FileFound, FilesListed
from tests.support.living import Node, Sandbox

NOTHING = Done(more=False)


def read(path: str, offset: int = 0, length: int = -1) -> ReadFile:
    return ReadFile(path=path, offset=offset, length=length)


def write(path: str, *, parents: bool = False) -> WriteFile:
    return WriteFile(path=path, mode=0o640, parents=parents)


async def refused(node: Node, command: Command) -> str:
    """Return why a command fails."""
    stream = node.open(command)
    return (await node.expect(stream, Failed)).error


async def found(node: Node, command: Command) -> Entry:
    """Return the entry that a command tells of before it is done."""
    stream = node.open(command)
    entry = (await node.expect(stream, FileFound)).entry
    await node.expect(stream, Done)
    return entry


async def listed(
    node: Node, path: str, *, depth: int = 1, most: int = 10_000
) -> tuple[set[str], bool]:
    """Return the paths of a list, and whether there are more."""
    stream = node.open(ListFiles(path=path, depth=depth, most=most))
    paths: set[str] = set()
    while isinstance(heard := await node.next_of(stream), FilesListed):
        paths |= {each.path for each in heard.entries}
    assert isinstance(heard, Done)
    return paths, heard.more


@pytest.mark.parametrize(("offset", "length"), [(0, -1), (5, 10), (999_990, 100), (2_000_000, -1)])
async def test_a_file_is_read_in_part_or_whole(
    node: Node, sandbox: Sandbox, offset: int, length: int
) -> None:
    content = os.urandom(1_000_000)
    (sandbox.workspace / "a").write_bytes(content)
    stream = node.open(read("a", offset, length))
    entry = (await node.expect(stream, FileFound)).entry
    assert (entry.path, entry.kind, entry.size) == (f"{sandbox.workspace}/a", "file", 1_000_000)
    got, _ = await node.until(stream, Done)
    assert got[b"D"] == (content[offset:] if length < 0 else content[offset : offset + length])


async def test_a_file_is_written_whole(node: Node, sandbox: Sandbox) -> None:
    """Until then there is the one before."""
    target = sandbox.workspace / "new" / "folder" / "a"
    assert await refused(node, write("new/folder/a")) == "ENOENT"
    content = os.urandom(1_000_000)
    for each in (content, b""):
        stream = node.open(write("new/folder/a", parents=True))
        await node.send(stream, each)
        assert not target.exists() or target.read_bytes() == content
        node.say(stream, EndOfBytes())
        entry = (await node.expect(stream, FileFound)).entry
        assert (entry.size, entry.mode) == (len(each), 0o640)
        await node.expect(stream, Done)
        assert target.read_bytes() == each
    assert [each.name for each in target.parent.iterdir()] == ["a"]


async def test_what_is_not_finished_leaves_nothing(node: Node, sandbox: Sandbox) -> None:
    """Cancelled, or because the connection ends."""
    cancelled, other = node.open(write("a")), node.open(write("b"))
    await node.send(cancelled, b"x" * 100_000)
    await node.send(other, b"x" * 100_000)
    await node.ping()
    assert len(list(sandbox.workspace.iterdir())) == 2
    node.say(cancelled, Cancel())
    assert await node.expect(cancelled, Done) == NOTHING
    assert len(list(sandbox.workspace.iterdir())) == 1
    await node.close()
    again = await sandbox.connection()
    await again.hear_first_word()
    assert list(sandbox.workspace.iterdir()) == []


async def test_a_link_is_written_through_and_a_folder_is_not_written(
    node: Node, sandbox: Sandbox
) -> None:
    (sandbox.workspace / "real").write_text("before")
    (sandbox.workspace / "link").symlink_to("real")
    (sandbox.workspace / "folder").mkdir()
    os.mkfifo(sandbox.workspace / "fifo")
    stream = node.open(write("link"))
    await node.send(stream, b"after")
    node.say(stream, EndOfBytes())
    await node.expect(stream, FileFound)
    assert (sandbox.workspace / "real").read_text() == "after"
    assert (sandbox.workspace / "link").is_symlink()
    assert await refused(node, write("folder")) == "EISDIR"
    assert await refused(node, write("fifo")) == "EINVAL"


async def test_only_regular_files_are_read(node: Node, sandbox: Sandbox) -> None:
    """A pipe that nobody writes to holds up nobody."""
    os.mkfifo(sandbox.workspace / "fifo")
    (sandbox.workspace / "loop").symlink_to("loop")
    assert await refused(node, read("fifo")) == "EINVAL"
    assert await refused(node, read("/dev/zero")) == "EINVAL"
    assert await refused(node, read(".")) == "EISDIR"
    assert await refused(node, read("missing")) == "ENOENT"
    assert await refused(node, read("loop")) == "ELOOP"
    assert await refused(node, read("a\0b")) == "EINVAL"
    assert await refused(node, read("x" * 300)) == "ENAMETOOLONG"


SECRET_PLACES = ("/proc/self/environ", "/proc/self/fd/0", "/proc/self/mem", "/sys/kernel/mm")


@pytest.mark.parametrize("path", SECRET_PLACES)
@pytest.mark.parametrize("way", ["straight", "link", "link to a folder", "dots"])
async def test_the_supervisors_own_files_are_refused(
    node: Node, sandbox: Sandbox, path: str, way: str
) -> None:
    """By any way; nobody reads PID 1's memory or descriptors, or writes to them."""
    folder, name = os.path.split(path)
    (sandbox.workspace / "file").symlink_to(path)
    (sandbox.workspace / "folder").symlink_to(folder)
    depth = len(sandbox.workspace.parts)
    asked = {
        "straight": path,
        "link": "file",
        "link to a folder": f"folder/{name}",
        "dots": "../" * depth + path[1:],
    }[way]
    assert await refused(node, read(asked)) == "EACCES"
    assert await refused(node, write(asked)) == "EACCES"
    if way != "link":  # of a link, these are about itself
        assert await refused(node, StatFile(path=asked)) == "EACCES"
        assert await refused(node, RemoveFile(path=asked, recursive=True)) == "EACCES"
        move = MoveFile(source=asked, target="moved", replace=True)
        assert await refused(node, move) == "EACCES"


async def test_the_same_ways_lead_to_other_files(
    node: Node, sandbox: Sandbox, tmp_path: Path
) -> None:
    """The control: it is where they lead that is refused."""
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "a").write_text("there")
    (sandbox.workspace / "file").symlink_to(tmp_path / "outer" / "a")
    (sandbox.workspace / "folder").symlink_to(tmp_path / "outer")
    dots = "../" * len(sandbox.workspace.parts) + str(tmp_path)[1:] + "/outer/a"
    for path in (str(tmp_path / "outer" / "a"), "file", "folder/a", dots):
        stream = node.open(read(path))
        await node.expect(stream, FileFound)
        got, _ = await node.until(stream, Done)
        assert got[b"D"] == b"there"


async def test_a_folder_is_listed_as_deep_as_asked(node: Node, sandbox: Sandbox) -> None:
    """Links are told of and not followed."""
    root = sandbox.workspace
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "c").touch()
    (root / "a" / "up").symlink_to("..")
    assert await listed(node, ".") == ({f"{root}/a"}, False)
    everything = {f"{root}/a", f"{root}/a/b", f"{root}/a/up", f"{root}/a/b/c"}
    assert await listed(node, ".", depth=9) == (everything, False)
    assert await listed(node, "a/up/a") == ({f"{root}/a/up/a/b", f"{root}/a/up/a/up"}, False)
    assert await refused(node, ListFiles(path="a/b/c", depth=1, most=1)) == "ENOTDIR"


async def test_a_long_list_comes_in_parts_and_as_far_as_asked(node: Node, sandbox: Sandbox) -> None:
    for number in range(3000):
        (sandbox.workspace / f"{number:0200}").touch()
    paths, more = await listed(node, ".")
    assert (len(paths), more) == (3000, False)
    paths, more = await listed(node, ".", most=100)
    assert (len(paths), more) == (100, True)


async def test_a_name_that_is_no_text_is_told_as_near_as_can_be(
    node: Node, sandbox: Sandbox
) -> None:
    os.close(os.open(os.fsencode(sandbox.workspace) + b"/\xff", os.O_CREAT))
    paths, _ = await listed(node, ".")
    assert paths == {f"{sandbox.workspace}/\N{REPLACEMENT CHARACTER}"}


async def test_folders_are_made(node: Node, sandbox: Sandbox) -> None:
    made = MakeFolder(path="a/b", mode=0o750, parents=False)
    assert await refused(node, made) == "ENOENT"
    for _ in range(2):
        entry = await found(node, MakeFolder(path="a/b", mode=0o750, parents=True))
        assert (entry.path, entry.kind, entry.mode) == (f"{sandbox.workspace}/a/b", "folder", 0o750)
    assert await refused(node, made) == "EEXIST"


async def test_a_link_is_told_of_by_itself(node: Node, sandbox: Sandbox) -> None:
    (sandbox.workspace / "link").symlink_to("no/where")
    entry = await found(node, StatFile(path="link"))
    assert (entry.kind, entry.target) == ("link", "no/where")


async def test_something_is_moved_and_replaces_only_if_told_so(
    node: Node, sandbox: Sandbox
) -> None:
    (sandbox.workspace / "a").write_text("a")
    (sandbox.workspace / "b").write_text("b")
    assert await refused(node, MoveFile(source="a", target="b", replace=False)) == "EEXIST"
    entry = await found(node, MoveFile(source="a", target="b", replace=True))
    assert entry.path == f"{sandbox.workspace}/b"
    assert (sandbox.workspace / "b").read_text() == "a"
    await found(node, MoveFile(source="b", target="c", replace=False))
    assert [each.name for each in sandbox.workspace.iterdir()] == ["c"]


async def test_a_tree_is_removed_and_nothing_that_it_links_to(
    node: Node, sandbox: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("kept")
    deep = sandbox.workspace / "tree" / "/".join("d" * 50)
    deep.mkdir(parents=True)
    for number in range(200):
        (deep / str(number)).touch()
    (deep / "out").symlink_to(tmp_path)
    assert await refused(node, RemoveFile(path="tree", recursive=False)) == "ENOTEMPTY"
    stream = node.open(RemoveFile(path="tree", recursive=True))
    assert await node.expect(stream, Done) == NOTHING
    assert list(sandbox.workspace.iterdir()) == []
    assert (tmp_path / "kept").exists()


async def test_a_tree_is_removed_however_deep_it_is(node: Node, sandbox: Sandbox) -> None:
    """Each folder is entered once: from the top, it would be a long way to each."""
    depth, folder = 2000, os.open(sandbox.workspace, os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=folder)
        above, folder = folder, os.open("d", os.O_DIRECTORY, dir_fd=folder)
        os.close(above)
    os.close(folder)
    took = sandbox.took_s()
    try:
        stream = node.open(RemoveFile(path="d", recursive=True))
        assert await node.expect(stream, Done) == NOTHING
        assert sandbox.took_s() - took < 2
        assert list(sandbox.workspace.iterdir()) == []
    finally:
        # What is left of it is too deep for the clean-up of temporary folders, which recurses.
        removal = await asyncio.create_subprocess_exec("rm", "-rf", sandbox.workspace / "d")
        assert await removal.wait() == 0


async def test_a_file_that_is_longer_than_any_may_be_is_told_as_a_full_disk(
    node: Node, sandbox: Sandbox
) -> None:
    assert sandbox.process is not None
    resource.prlimit(sandbox.process.pid, resource.RLIMIT_FSIZE, (2**20, 2**20))
    stream = node.open(write("large"))
    sending = asyncio.create_task(node.send(stream, bytes(2 * 2**20)))
    assert await node.expect(stream, Failed) == Failed(error="ENOSPC")
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert list(sandbox.workspace.iterdir()) == []


async def test_nobody_waits_for_a_large_file(node: Node, sandbox: Sandbox) -> None:
    """A reader that takes nothing holds up no ping and no other stream."""
    (sandbox.workspace / "large").write_bytes(b"x" * 50_000_000)
    node.grants = False
    streams = [node.open(read("large")) for _ in range(5)]
    await asyncio.sleep(0.2)
    await node.ping()
    node.grants = True
    for stream in streams:
        node.say(stream, Cancel())
        await node.expect(stream, FileFound)
        await node.until(stream, Done)
