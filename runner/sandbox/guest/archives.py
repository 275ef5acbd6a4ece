"""Whole folders of a living sandbox, as tar archives that tar(1) in the sandbox writes and reads.

An archive that a sandbox writes is as hostile as the sandbox. Nothing here looks into one.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from signal import SIGKILL, SIGXFSZ
from typing import Any, TypeVar

from runner.protocol.frames import Data
from runner.protocol.living_commands import PackFolder, UnpackFolder
from runner.protocol.living_events import Archived, Failed
from runner.sandbox.guest import patience
from runner.sandbox.guest.channel import Heard
from runner.sandbox.guest.filing import found
from runner.sandbox.guest.mux import Mux
from runner.sandbox.guest.patience import Patience
from runner.sandbox.guest.stream import Stream
from runner.words.errors import Conflict, GuestRefused, Invalid, Refused
from runner.words.living import FileEntry

T = TypeVar("T")

_LOOKS = 6
"""How often it is looked whether the sandbox is frozen before an archive is given up."""
_CHANGED = 1
"""The exit code of tar for files that changed while it read them."""
_CAUSES = {
    "No space left on device": "ENOSPC",
    "Wrote only": "ENOSPC",
    "Disk quota exceeded": "EDQUOT",
    "Cannot allocate memory": "ENOMEM",
    "File too large": "ENOSPC",
    "Permission denied": "EACCES",
    "Not a directory": "ENOTDIR",
    "Is a directory": "EISDIR",
    "File exists": "EEXIST",
    "Directory not empty": "ENOTEMPTY",
}
"""Reasons of the kernel as tar words them, the gravest first. The archive is not to blame."""

_SIGNALS: dict[int, str] = {SIGXFSZ: "ENOSPC", SIGKILL: "ENOMEM"}
"""If a sandbox's memory is used up, the kernel kills its programs by SIGKILL."""


class _Moving:
    """Waits for tar, which any program of the same user can stop, as long as something moves."""

    def __init__(self, mux: Mux, waits: Patience, path: str) -> None:
        self._mux = mux
        self._patience = waits
        self._path = path

    async def next(self, stream: Stream) -> Heard:
        """Return what the stream reads. Raises Conflict if nothing comes for too long."""
        return await (stream.read() if stream.ready else self(stream.read()))

    async def __call__(self, step: Coroutine[Any, Any, T]) -> T:
        """Return what one step returns. Raises Conflict if it takes too long.

        The time in which the sandbox is frozen does not count.
        """
        task, quiet = asyncio.create_task(step), 0
        try:
            while quiet < _LOOKS:
                await asyncio.wait(
                    {task}, timeout=self._patience.stretched(patience.ARCHIVE_S) / _LOOKS
                )
                if task.done():
                    return task.result()
                quiet += not self._mux.frozen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        seconds = self._patience.stretched(patience.ARCHIVE_S)
        raise Conflict(
            f"{self._path}: tar in the sandbox has moved no byte for {seconds:g} s and was given "
            "up; see whether a process in the sandbox has stopped it, and try again"
        )


class OpenArchive:
    """A folder as an archive: its entry, and the archive's bytes by iterating once."""

    def __init__(self, stream: Stream, path: str, entry: FileEntry, moving: _Moving) -> None:
        self.entry = entry
        self._stream = stream
        self._path = path
        self._moving = moving

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes. Raises GuestRefused if something in the folder cannot be read.

        Raises Conflict if nothing comes for too long.
        """
        while isinstance(message := await self._moving.next(self._stream), Data):
            yield message.payload
        ended = _ended(self._stream, message, self._path)
        if ended.exit_code not in {0, _CHANGED}:
            raise _cause(ended, self._path) or GuestRefused("EIO", self._path)


class GuestArchives:
    """The folders of one living sandbox, as archives.

    Every method raises GuestRefused if the sandbox's kernel refuses, Conflict if tar moves nothing
    for `ARCHIVE_S`, and the reason if the connection was lost.
    """

    def __init__(self, mux: Mux, waits: Patience) -> None:
        self._mux = mux
        self._patience = waits

    @asynccontextmanager
    async def pack(self, path: str) -> AsyncIterator[OpenArchive]:
        """Read a folder as an archive for the context. Its processes go on meanwhile."""
        async with self._mux.open(PackFolder(path)) as stream:
            moving = _Moving(self._mux, self._patience, path)
            yield OpenArchive(stream, path, await found(stream, path), moving)

    async def unpack(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        """Write what is in an archive into a folder. What was written stays if this fails.

        Raises Invalid if these bytes are no archive that can be unpacked.
        """
        async with self._mux.open(UnpackFolder(path)) as stream:
            moving = _Moving(self._mux, self._patience, path)
            await found(stream, path)
            async for chunk in chunks:
                if not await moving(stream.send(chunk)):
                    break
            stream.finish()
            ended = _ended(stream, await moving.next(stream), path)
        if ended.exit_code != 0:
            raise _cause(ended, path) or Invalid(
                f"the archive cannot be unpacked: {_readable(ended.said)}", "archive"
            )


def _ended(stream: Stream, message: Heard, path: str) -> Archived:
    if isinstance(message, Failed):
        raise GuestRefused(message.error, path)
    if not isinstance(message, Archived):
        raise stream.unexpected(message)
    return message


def _cause(ended: Archived, path: str) -> Refused | None:
    """Return the kernel's reason, if there was one."""
    if ended.signal is not None:
        return GuestRefused(_SIGNALS.get(ended.signal, "EINTR"), path)
    return next((GuestRefused(name, path) for told, name in _CAUSES.items() if told in ended.said),
                None)  # fmt: skip


def _readable(said: str) -> str:
    """Return what tar said, in one line. A sandbox may say anything."""
    lines = (line.removeprefix("/bin/tar: ").strip() for line in said.splitlines())
    text = "; ".join(line for line in lines if line)[:300]
    return "".join(each if each.isprintable() else "?" for each in text) or "tar has failed"
