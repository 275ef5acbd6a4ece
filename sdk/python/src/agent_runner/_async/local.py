"""Waiting, and reading and writing files on this host, for the asynchronous client.

The synchronous one has a module of the same names. Files are read and written in a thread, and the
event loop goes on meanwhile.
"""

import asyncio
import os
from asyncio import sleep
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar, cast

from agent_runner import packing, unpacking

__all__ = ["Content", "packed", "sendable", "size_header", "sleep", "unpacked"]

PIECE = 256 * 1024
Content = bytes | IO[bytes] | Iterable[bytes] | AsyncIterable[bytes]
"""The body of a request."""

T = TypeVar("T")


def sendable(content: Content) -> bytes | AsyncIterable[bytes]:
    """Return a body as the transport takes it."""
    if isinstance(content, bytes | AsyncIterable):
        return content
    return _read(cast("IO[bytes]", content)) if hasattr(content, "read") else _each(content)


def size_header(content: Content) -> Mapping[str, str]:
    """Return the header that tells the size of a file, from where it stands to its end."""
    if not hasattr(content, "read"):
        return {}
    file = cast("IO[bytes]", content)
    here = file.tell()
    size = file.seek(0, os.SEEK_END) - here
    file.seek(here)
    return {"Content-Length": str(size)}


def packed(folder: Path) -> AsyncIterator[bytes]:
    """Yield what is in a folder here as a tar archive."""
    return _each(packing.packed(folder))


async def unpacked(pieces: AsyncIterator[bytes], folder: Path, *, most_bytes: int) -> None:
    """Write what is in an archive into a folder here. Cancelled, it writes no more."""
    source = _InThread(pieces)
    await source.give(lambda: unpacking.unpack(iter(source), folder, most_bytes=most_bytes))


async def _read(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece


async def _each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    source = iter(pieces)
    while (piece := await asyncio.to_thread(next, source, None)) is not None:
        yield piece


class _InThread:
    """Pieces that come in the event loop, for work in a thread to iterate over."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._loop = asyncio.get_running_loop()
        # Both change in the event loop alone.
        self._waiting: asyncio.Task[bytes | None] | None = None
        self._stopped = False

    def __iter__(self) -> Iterator[bytes]:
        while True:
            coming = asyncio.run_coroutine_threadsafe(self._one(), self._loop)
            if (piece := coming.result()) is None:
                return
            yield piece

    async def give(self, work: Callable[[], None]) -> None:
        """Do the work in a thread; if this is cancelled, the work ends before it raises."""
        working = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            self._stopped = True
            if self._waiting is not None:
                self._waiting.cancel()
            with suppress(Exception, asyncio.CancelledError):
                await working
            raise

    async def _one(self) -> bytes | None:
        if self._stopped:
            raise EOFError("nobody waits for it any more")
        self._waiting = asyncio.current_task()
        return await anext(self._pieces, None)
