"""Changes below a folder are told, also of folders that are made meanwhile."""

import asyncio

from runner.protocol.living_commands import Cancel, WatchFiles
from runner.protocol.living_events import Change, Done, Failed, FilesChanged, Watching
from tests.support.living import Node, Sandbox


async def changes(node: Node, stream: int, *, until: str) -> list[Change]:
    """Return changes, up to the first of a path that ends so."""
    found: list[Change] = []
    while not any(each.path.endswith(until) for each in found):
        told = await node.expect(stream, FilesChanged)
        assert not told.lost
        found += told.changes
    return found


async def test_what_changes_in_a_folder_is_told(node: Node, sandbox: Sandbox) -> None:
    root = sandbox.workspace
    (root / "inner").mkdir()
    stream = node.open(WatchFiles(path=".", recursive=False))
    await node.expect(stream, Watching)
    (root / "inner" / "unseen").touch()
    (root / "a").write_text("x")
    (root / "a").rename(root / "b")
    (root / "b").chmod(0o600)
    (root / "b").unlink()
    (root / "last").mkdir()
    told = await changes(node, stream, until="last")
    assert [(each.kind, each.path.removeprefix(f"{root}/"), each.folder) for each in told] == [
        ("made", "a", False),
        ("written", "a", False),
        ("moved_from", "a", False),
        ("moved_to", "b", False),
        ("attributes", "b", False),
        ("removed", "b", False),
        ("made", "last", True),
    ]
    node.say(stream, Cancel())
    assert await node.expect(stream, Done) == Done(more=False)
    (root / "later").touch()
    await node.ping()
    assert node.silent(stream)


async def test_new_folders_are_watched_too(node: Node, sandbox: Sandbox) -> None:
    """However fast something is put into them; what was moved away is not."""
    root = sandbox.workspace
    stream = node.open(WatchFiles(path=".", recursive=True))
    await node.expect(stream, Watching)
    (root / "a" / "b" / "c").mkdir(parents=True)
    (root / "a" / "b" / "c" / "file").touch()
    told = await changes(node, stream, until="file")
    assert {each.path for each in told if each.kind == "made"} >= {
        f"{root}/a",
        f"{root}/a/b",
        f"{root}/a/b/c",
        f"{root}/a/b/c/file",
    }
    (root / "a" / "b").rename(root.parent / "away")
    (root.parent / "away" / "c" / "unseen").touch()
    (root / "a" / "last").touch()
    told = await changes(node, stream, until="last")
    assert not any("unseen" in each.path for each in told)


async def test_a_folder_that_is_moved_is_told_of_by_its_new_name(
    node: Node, sandbox: Sandbox
) -> None:
    """With all that is in it, and whatever takes its old name."""
    root = sandbox.workspace
    for number in range(300):
        (root / "a" / str(number) / "inner").mkdir(parents=True)
    stream = node.open(WatchFiles(path=".", recursive=True))
    await node.expect(stream, Watching)
    (root / "a").rename(root / "b")
    (root / "a").mkdir()
    (root / "ready").touch()
    await changes(node, stream, until="ready")
    (root / "b" / "7" / "inner" / "file").touch()
    (root / "a" / "other").touch()
    (root / "last").touch()
    told = await changes(node, stream, until="last")
    made = [each.path.removeprefix(f"{root}/") for each in told if each.kind == "made"]
    assert made == ["b/7/inner/file", "a/other", "last"]


async def test_a_storm_of_renames_in_a_large_tree_holds_up_nobody(
    node: Node, sandbox: Sandbox
) -> None:
    root = sandbox.workspace
    for number in range(8000):
        (root / "many" / str(number)).mkdir(parents=True)
    stream = node.open(WatchFiles(path=".", recursive=True))
    await node.expect(stream, Watching)
    (root / "one").mkdir()
    for _ in range(2000):
        (root / "one").rename(root / "other")
        (root / "other").rename(root / "one")
    # A walk through the tree for each of them would take minutes.
    assert await node.ping() < 20


async def test_more_changes_than_are_kept_are_told_as_lost(node: Node, sandbox: Sandbox) -> None:
    """A reader that takes nothing makes the supervisor keep little."""
    node.grants = False
    stream = node.open(WatchFiles(path=".", recursive=True))
    await node.expect(stream, Watching)
    for number in range(20_000):
        (sandbox.workspace / f"{number:0100}").touch()
    await asyncio.sleep(0.5)
    node.grants = True
    node.grant(stream, 2**20)
    for _ in range(1000):
        if (await node.expect(stream, FilesChanged)).lost:
            break
    else:
        raise AssertionError("nothing was told as lost")


async def test_what_is_no_folder_is_not_watched(node: Node, sandbox: Sandbox) -> None:
    (sandbox.workspace / "a").touch()
    for path, error in (("a", "ENOTDIR"), ("b", "ENOENT"), ("/proc", "EACCES")):
        stream = node.open(WatchFiles(path=path, recursive=True))
        assert await node.expect(stream, Failed) == Failed(error=error)
