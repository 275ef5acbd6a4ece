"""Waiting, and reading and writing files on this host, for the synchronous client."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import sleep
from typing import IO

from agent_runner import unpacking
from agent_runner.packing import packed

__all__ = ["Content", "packed", "sendable", "size_header", "sleep", "unpacked"]

Content = bytes | IO[bytes] | Iterable[bytes]
"""The body of a request."""


def sendable(content: Content) -> Content:
    """Return a body as the transport takes it."""
    return content


def size_header(_: Content) -> Mapping[str, str]:
    """Return no header: the transport finds out the size of a file by itself."""
    return {}


def unpacked(pieces: Iterator[bytes], folder: Path, *, most_bytes: int) -> None:
    """Write what is in an archive into a folder here."""
    unpacking.unpack(pieces, folder, most_bytes=most_bytes)
