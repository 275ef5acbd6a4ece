"""The entries of a folder, as E2B's clients are told them: whole, or not at all."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from itertools import islice

from runner.api.e2b.daemon import answers
from runner.api.e2b.daemon.connect import Code, ConnectError
from runner.api.e2b.daemon.tree import Tree
from runner.door.client import MAX_LISTED_BYTES
from runner.door.streams import FileListing
from runner.words.living import FileEntry

MAX_DEPTH = 64
MAX_ENTRIES = 10_000
MAX_LINKS_FOLLOWED = 200
"""How many links of one answer are followed to learn what they lead to."""


def require_whole(found: FileListing, depth: int) -> None:
    """Refuse a listing that lacks something; `depth` is the one that was asked for.

    Raises ConnectError.
    """
    if found.more:
        raise ConnectError(
            Code.FAILED_PRECONDITION,
            f"there are more than {MAX_ENTRIES} entries, or more than {MAX_LISTED_BYTES} bytes of "
            "paths: list with less depth, or folder by folder",
        )
    if depth <= MAX_DEPTH or not found.files:
        return
    levels = [each.path.count("/") for each in found.files]
    deepest = min(levels) + MAX_DEPTH - 1
    for each, level in zip(found.files, levels, strict=True):
        if each.kind == "folder" and level >= deepest:
            raise ConnectError(
                Code.FAILED_PRECONDITION,
                f"there are more than {MAX_DEPTH} levels of folders: list with less depth, or "
                "folder by folder",
            )


def ordered(files: Sequence[FileEntry]) -> list[FileEntry]:
    """Return entries as a walk comes by them: a folder, what is in it, then the next."""
    # NUL is in no name, and comes before all that is.
    return sorted(files, key=lambda each: each.path.replace("/", "\0"))


async def listed(tree: Tree, found: FileListing) -> bytes:
    """Return the answer as JSON. A thread makes it, so that the event loop goes on."""
    files = await asyncio.to_thread(ordered, found.files)
    links = islice((each for each in files if each.kind == "link"), MAX_LINKS_FOLLOWED)
    targets = {each.path: await tree.target(each) for each in links}
    return await asyncio.to_thread(_encoded, files, targets, tree.inside.user)


def _encoded(
    files: Sequence[FileEntry], targets: Mapping[str, FileEntry | None], user: str
) -> bytes:
    # Entry by entry: the encoder keeps all other threads waiting for as long as one call takes.
    entries = (
        json.dumps(
            answers.entry(each, targets.get(each.path), user),
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()
        for each in files
    )
    return b'{"entries":[' + b",".join(entries) + b"]}"
