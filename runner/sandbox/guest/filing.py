"""Files of a living sandbox: read, written, listed, moved, watched.

Paths are absolute, or relative to the workspace; the supervisor opens them as the sandbox's user.
Names and sizes that it reports are only the sandbox's word.
"""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runner.protocol.commands import Command
from runner.protocol.frames import Data
from runner.protocol.living_commands import (
    ListFiles,
    MakeFolder,
    MoveFile,
    ReadFile,
    RemoveFile,
    StatFile,
    WatchFiles,
    WriteFile,
)
from runner.protocol.living_events import (
    Done,
    Entry,
    Failed,
    FileFound,
    FilesChanged,
    FilesListed,
    Watching,
)
from runner.sandbox.guest.channel import Heard
from runner.sandbox.guest.mux import Mux
from runner.sandbox.guest.stream import Stream
from runner.words.errors import GuestRefused
from runner.words.living import FileChange, FileEntry

MODE = 0o644
MOST_TEXT = 4 * 1024 * 1024
"""How many characters the names of one listing may have together."""
LONGEST_PATH = 4096
"""Nobody can ask for a longer path, so none is reported."""
FOLDER_MODE = 0o755
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class FilesSeen:
    """Entries of a folder. With `more`, there are more than were asked for."""

    entries: tuple[FileEntry, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class ChangesSeen:
    """Changes below a watched folder. With `lost`, more than this changed."""

    changes: tuple[FileChange, ...]
    lost: bool


class OpenFile:
    """A file being read: its entry, and its bytes by iterating once."""

    def __init__(self, stream: Stream, path: str, entry: FileEntry, length: int | None) -> None:
        self.entry = entry
        self._stream = stream
        self._path = path
        self._left = length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes. Raises GuestRefused if the file cannot be read to the end."""
        while isinstance(message := await self._stream.read(), Data):
            if self._left is not None:
                self._left -= len(message.payload)
                if self._left < 0:
                    raise self._stream.unexpected(message)
            yield message.payload
        _done(self._stream, message, self._path)


class GuestListing:
    """The entries of a folder, by iterating once. Nothing is gathered here.

    It ends early, with `more`, once its names are `MOST_TEXT` long.
    """

    def __init__(self, stream: Stream, path: str, most: int) -> None:
        self.more = False
        """Whether there was more than iteration yielded; valid once that has ended."""
        self._stream = stream
        self._path = path
        self._most = most

    async def __aiter__(self) -> AsyncIterator[tuple[FileEntry, ...]]:
        """Yield some entries at a time. Raises GuestRefused if they cannot be listed."""
        left, text = self._most, MOST_TEXT
        while isinstance(message := await self._stream.read(), FilesListed):
            if (left := left - len(message.entries)) < 0:
                raise self._stream.unexpected(message)
            told = []
            for each in map(_entry, message.entries):
                length = len(each.path) + len(each.target or "")
                if max(len(each.path), len(each.target or "")) > LONGEST_PATH:
                    self.more = True
                elif (text := text - length) >= 0:
                    told.append(each)
            if told:
                yield tuple(told)
            if text < 0:
                self.more = True
                return
        self.more |= _done(self._stream, message, self._path).more


class FolderWatch:
    """A folder being watched: iterate over its changes."""

    def __init__(self, stream: Stream, path: str) -> None:
        self._stream = stream
        self._path = path

    async def __aiter__(self) -> AsyncIterator[ChangesSeen]:
        """Yield what changes. Raises GuestRefused if it can no longer be watched."""
        while isinstance(message := await self._stream.read(), FilesChanged):
            changes = (FileChange(each.kind, each.path, each.folder) for each in message.changes)
            yield ChangesSeen(tuple(changes), message.lost)
        if isinstance(message, Failed):
            raise GuestRefused(message.error, self._path)
        raise self._stream.unexpected(message)


class GuestFiles:
    """The files of one living sandbox.

    Every method raises GuestRefused if the sandbox's kernel refuses, and the reason if the
    connection was lost.
    """

    def __init__(self, mux: Mux) -> None:
        self._mux = mux

    @asynccontextmanager
    async def read(
        self, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[OpenFile]:
        """Open a regular file for the context; without `length`, to its end."""
        command = ReadFile(path, offset, -1 if length is None else length)
        async with self._mux.open(command) as stream:
            entry = await found(stream, path)
            yield OpenFile(stream, path, entry, length)

    async def write(
        self, path: str, chunks: AsyncIterable[bytes], *, mode: int = MODE, parents: bool = True
    ) -> FileEntry:
        """Write a whole file, or leave what was there, even if `chunks` raises."""
        async with self._mux.open(WriteFile(path, mode, parents)) as stream:
            async for chunk in chunks:
                if not await stream.send(chunk):
                    break
            stream.finish()
            return await _only(stream, path)

    async def list(self, path: str, *, depth: int = 1, most: int = 10_000) -> FilesSeen:
        """Return what is in a folder; depth 1 is the folder alone. No link is followed."""
        entries: list[FileEntry] = []
        async with self.listed(path, depth=depth, most=most) as listing:
            async for some in listing:
                entries.extend(some)
        return FilesSeen(tuple(entries), listing.more)

    @asynccontextmanager
    async def listed(
        self, path: str, *, depth: int = 1, most: int = 10_000
    ) -> AsyncIterator["GuestListing"]:
        """List a folder as `list` does, with entries as they come."""
        async with self._mux.open(ListFiles(path, depth, most)) as stream:
            yield GuestListing(stream, path, most)

    async def stat(self, path: str) -> FileEntry:
        """Return one file, folder or link."""
        return await self._found(StatFile(path), path)

    async def make_folder(
        self, path: str, *, mode: int = FOLDER_MODE, parents: bool = True
    ) -> FileEntry:
        """Make a folder; with `parents`, it may exist already."""
        return await self._found(MakeFolder(path, mode, parents), path)

    async def move(self, source: str, target: str, *, replace: bool = False) -> FileEntry:
        """Rename a file, folder or link."""
        return await self._found(MoveFile(source, target, replace), source)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, link or folder; a folder that is not empty only with `recursive`."""
        async with self._mux.open(RemoveFile(path, recursive)) as stream:
            _done(stream, await stream.read(), path)

    @asynccontextmanager
    async def watch(self, path: str, *, recursive: bool = True) -> AsyncIterator[FolderWatch]:
        """Watch a folder for the context; reports what changes from then on."""
        async with self._mux.open(WatchFiles(path, recursive)) as stream:
            message = await stream.read()
            if isinstance(message, Failed):
                raise GuestRefused(message.error, path)
            if not isinstance(message, Watching):
                raise stream.unexpected(message)
            yield FolderWatch(stream, path)

    async def _found(self, command: Command, path: str) -> FileEntry:
        async with self._mux.open(command) as stream:
            return await _only(stream, path)


async def _only(stream: Stream, path: str) -> FileEntry:
    """Return the only entry that the stream reports."""
    entry = await found(stream, path)
    _done(stream, await stream.read(), path)
    return entry


async def found(stream: Stream, path: str) -> FileEntry:
    """Return the entry that the stream reports. Raises GuestRefused if there is none."""
    message = await stream.read()
    if isinstance(message, Failed):
        raise GuestRefused(message.error, path)
    if not isinstance(message, FileFound):
        raise stream.unexpected(message)
    return _entry(message.entry)


def _done(stream: Stream, message: Heard, path: str) -> Done:
    """Return the end of a stream that succeeded."""
    if isinstance(message, Failed):
        raise GuestRefused(message.error, path)
    if not isinstance(message, Done):
        raise stream.unexpected(message)
    return message


def _entry(told: Entry) -> FileEntry:
    return FileEntry(
        path=told.path,
        kind=told.kind,
        size=told.size,
        mode=told.mode,
        modified_at=_EPOCH + timedelta(microseconds=told.modified_ns // 1000),
        target=told.target if told.kind == "link" else None,
    )
