"""Listings of hostile folders: bounded in entries, depth and bytes, and made beside the loop."""

import json
import threading
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.api.e2b.daemon import answers, listing
from runner.api.e2b.daemon.connect import Code, ConnectError
from runner.api.e2b.daemon.listing import MAX_DEPTH, listed, ordered, require_whole
from runner.api.e2b.daemon.tree import Tree
from runner.api.e2b.inside import Inside
from runner.door.client import MAX_LISTED_BYTES, Door
from runner.door.replies import DoneReply, FilesReply
from runner.door.streams import FileListing
from runner.words.living import FileEntry, FileKind

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def entry(path: str, kind: FileKind = "file") -> FileEntry:
    """Return an entry."""
    return FileEntry(path, kind, 1, 0o644, NOW, "file" if kind == "link" else None)


NAME = st.text("ab.-\x01\N{SNOWMAN}", min_size=1, max_size=3)


@given(st.lists(st.lists(NAME, min_size=1, max_size=4).map("/".join)))
def test_entries_come_as_a_walk_comes_by_them(paths: list[str]) -> None:
    files = [entry(f"/{each}") for each in paths]
    assert ordered(files) == sorted(files, key=lambda each: each.path.split("/"))


def test_ordering_deep_paths_takes_little_memory() -> None:
    """About as much as the paths have: their parts, as lists, would take fifty times as much."""
    files = [entry("/d" * 990 + f"/{n}") for n in range(1000)]
    size = sum(len(each.path) for each in files)
    tracemalloc.start()
    try:
        ordered(files)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * size


def test_what_may_lack_something_is_refused() -> None:
    """Above the number of entries, and below the deepest level; never silently cut."""
    with pytest.raises(ConnectError) as refused:
        require_whole(FileListing((entry("/a"),), more=True), 1)
    assert refused.value.code is Code.FAILED_PRECONDITION
    chain = tuple(entry("/top" + "/d" * n, "folder") for n in range(1, MAX_DEPTH + 1))
    require_whole(FileListing(chain, more=False), MAX_DEPTH)
    require_whole(FileListing(chain[:-1], more=False), MAX_DEPTH + 1)
    require_whole(FileListing((), more=False), MAX_DEPTH + 1)
    with pytest.raises(ConnectError, match="levels"):
        require_whole(FileListing(chain, more=False), MAX_DEPTH + 1)


class Node:
    """A node that lists a folder without an end."""

    def __init__(self) -> None:
        self.heard = 0

    @asynccontextmanager
    async def call(self, *_: object) -> AsyncIterator["Node"]:
        """Begin to list."""
        yield self

    async def hear(self) -> FilesReply | DoneReply:
        """Return further entries."""
        if self.heard == 1000:
            return DoneReply(more=False)
        self.heard += 1
        return FilesReply(tuple(entry("/" + "d/" * 2000 + str(n)) for n in range(10)))


async def test_no_more_bytes_of_paths_are_read_than_permitted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = Node()
    monkeypatch.setattr(Door, "_call", node.call)
    found = await Door(tmp_path).list_files(cast(Any, None), "/", depth=64)
    assert found.more
    assert sum(len(each.path) for each in found.files) < MAX_LISTED_BYTES + 2**16


async def test_a_thread_makes_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first links are followed, in the answer's order."""
    monkeypatch.setattr(listing, "MAX_LINKS_FOLLOWED", 1)
    threads = set()

    def watched(found: FileEntry, target: FileEntry | None, user: str) -> dict[str, Any]:
        threads.add(threading.get_ident())
        return {"path": found.path, "target": target.path if target else None, "user": user}

    async def target(_: Tree, found: FileEntry) -> FileEntry:
        return entry(f"{found.path}/led")

    monkeypatch.setattr(answers, "entry", watched)
    monkeypatch.setattr(Tree, "target", target)
    tree = Tree(cast(Any, None), Inside(cast(Any, None), uuid4(), "app"))
    found = FileListing((entry("/b", "link"), entry("/a/x", "link"), entry("/a")), more=False)
    assert json.loads(await listed(tree, found)) == {
        "entries": [
            {"path": "/a", "target": None, "user": "app"},
            {"path": "/a/x", "target": "/a/x/led", "user": "app"},
            {"path": "/b", "target": None, "user": "app"},
        ]
    }
    assert threads
    assert threading.get_ident() not in threads
