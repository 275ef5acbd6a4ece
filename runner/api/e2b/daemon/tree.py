"""The files of a sandbox as E2B has them: links are followed to learn what they lead to."""

import asyncio
import posixpath
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from time import monotonic

from runner.api.e2b.daemon import answers
from runner.api.e2b.daemon.answers import GONE, Answer
from runner.api.e2b.daemon.connect import Code, ConnectError
from runner.api.e2b.inside import Inside
from runner.door.streams import FileChanges
from runner.sandboxes.use import Using
from runner.words.errors import FileRefused
from runner.words.living import FileChange, FileEntry

MAX_LINKS = 8
MAX_DESCRIBED = 200
"""How many changes of one answer, or of one second of a stream, are described."""
NEW_FILE = 0o644
_BESIDE = re.compile(r"\.[0-9a-f]{16}\.part")
"""The name that a file has while a client writes it, until it is whole."""


def whole(changes: Iterable[FileChange]) -> Iterator[FileChange]:
    """Yield changes without the files that are being written beside those that they will replace.

    E2B writes files in place, and its clients expect no other name than the file's own.
    """
    for each in changes:
        if not _BESIDE.fullmatch(posixpath.basename(each.path)):
            yield each


class Looks:
    """The number of changes that may still be described: each takes questions to the sandbox.

    There are MAX_DESCRIBED of them, and as many again every `each_s` seconds; None for never.
    """

    def __init__(self, each_s: float | None = None) -> None:
        self._each_s = each_s
        self._left = MAX_DESCRIBED
        self._since = monotonic()

    def take(self) -> bool:
        """Take one, if one is left."""
        now = monotonic()
        if self._each_s is not None and now - self._since >= self._each_s:
            self._left, self._since = MAX_DESCRIBED, now
        if self._left <= 0:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a sandbox, as E2B has them."""

    using: Using
    inside: Inside

    async def stat(self, path: str) -> FileEntry:
        """Look at a file, folder or link."""
        return await self.using.stat_file(self.inside.caller, self.inside.sandbox_id, path)

    async def make(self, path: str, *, parents: bool) -> FileEntry:
        """Make a folder."""
        caller, sandbox_id = self.inside.caller, self.inside.sandbox_id
        return await self.using.make_folder(caller, sandbox_id, path, parents=parents)

    async def move(self, source: str, target: str) -> FileEntry:
        """Rename; what has the new name is replaced."""
        caller, sandbox_id = self.inside.caller, self.inside.sandbox_id
        return await self.using.move_file(caller, sandbox_id, source, target, replace=True)

    async def target(self, found: FileEntry) -> FileEntry | None:
        """Return what a link leads to; None for what is no link, or leads nowhere."""
        for _ in range(MAX_LINKS):
            if found.kind != "link" or found.target is None:
                break
            try:
                found = await self.stat(posixpath.join(posixpath.dirname(found.path), found.target))
            except FileRefused:
                return None
        return None if found.kind == "link" else found

    async def described(self, found: FileEntry) -> Answer:
        """Describe a file, folder or link."""
        return answers.entry(
            found, await self.target(found) if found.kind == "link" else None, self.inside.user
        )

    async def exists(self, path: str) -> ConnectError:
        """Return why a folder cannot be made where something is already."""
        found = await self.stat(path)
        there = await self.target(found) or found
        if there.kind == "folder":
            return ConnectError(Code.ALREADY_EXISTS, f"{found.path}: the folder exists already")
        return ConnectError(Code.INVALID_ARGUMENT, f"{found.path}: this exists, and is no folder")

    async def folder(self, path: str) -> str:
        """Return a folder's whole path. Raises ConnectError for anything else."""
        found = await self.stat(path)
        there = await self.target(found) or found
        if there.kind != "folder":
            raise ConnectError(Code.INVALID_ARGUMENT, f"{found.path}: this is no folder")
        return found.path

    async def changes(
        self, root: str, seen: FileChanges, looks: Looks | None
    ) -> AsyncIterator[Answer]:
        """Yield what has changed, and describe what is there now while there are `looks`.

        Raises ConnectError if it is not all known.
        """
        for each in whole(seen.changes):
            # Thousands may wait that are not described.
            await asyncio.sleep(0)
            found = None
            if looks is not None and each.kind not in GONE and looks.take():
                found = await self._there(each)
            yield answers.change(each.kind, posixpath.relpath(each.path, root), found)
        if seen.lost:
            raise ConnectError(
                Code.DATA_LOSS, "more has changed than could be reported: list the folder again"
            )

    async def _there(self, change: FileChange) -> Answer | None:
        """Describe what a change has left; None if it has gone meanwhile."""
        try:
            return await self.described(await self.stat(change.path))
        except FileRefused:
            return None

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> FileEntry:
        """Write a file as a whole. One that is there keeps its permissions."""
        mode = NEW_FILE
        try:
            found = await self.stat(path)
            there = await self.target(found) or found
        except FileRefused as error:
            if error.errno_name != "ENOENT":
                raise
        else:
            if there.kind == "folder":
                raise ConnectError(Code.INVALID_ARGUMENT, f"{found.path}: this is a folder")
            if there.kind == "file":
                mode = there.mode & 0o777
        return await self.using.write_file(
            self.inside.caller, self.inside.sandbox_id, path, chunks, mode=mode
        )
