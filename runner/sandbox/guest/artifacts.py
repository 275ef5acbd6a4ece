"""The files a program left, on their way out of its sandbox. Their names are as hostile as any."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from runner.base.masking import Masker
from runner.protocol.commands import Collect
from runner.protocol.events import MAX_NAME, ArtifactOffered, Collected
from runner.protocol.frames import Data
from runner.sandbox.guest.channel import Channel, unexpected
from runner.words.errors import ProtocolViolation, SandboxFault
from runner.words.text import printable


@dataclass(frozen=True, slots=True)
class CollectedFiles:
    """The files that the program left. `refused` is `path: reason`, the first fifty."""

    files: int
    bytes: int
    refused: tuple[str, ...]
    refused_total: int


NOTHING = CollectedFiles(files=0, bytes=0, refused=(), refused_total=0)


class ArtifactSink(Protocol):
    """The destination of artifacts, one at a time."""

    async def add(self, path: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Take one file. `chunks` yields exactly `size` bytes, or raises SandboxFault."""


async def collect(
    channel: Channel,
    *,
    names: Sequence[str],
    max_files: int,
    max_bytes: int,
    again: bool,
    sink: ArtifactSink,
    masker: Masker,
) -> CollectedFiles:
    """Hand the files to the sink; name those refused, with secrets starred.

    Raises ProtocolViolation for more than was asked for.
    """
    files, size = 0, 0
    patterns = json.dumps(names).encode() if names else b""
    await channel.send(Collect(len(patterns), max_files, max_bytes, again), patterns)
    while isinstance(message := await channel.read(), ArtifactOffered):
        files, size = files + 1, size + message.size
        if files > max_files or size > max_bytes:
            raise ProtocolViolation("the sandbox handed back more than it was asked for")
        pieces = _pieces(channel, message.size)
        await sink.add(message.path, message.size, pieces)
        async for _ in pieces:
            raise SandboxFault(f"artifact {message.path!r} was not taken whole")
    if not isinstance(message, Collected):
        raise unexpected(message)
    refused = tuple(
        f"{_starred(path, masker)}: {_starred(why, masker)}" for path, why in message.refused
    )
    return CollectedFiles(files, size, refused, max(message.refused_total, len(refused)))


async def _pieces(channel: Channel, size: int) -> AsyncIterator[bytes]:
    while size > 0:
        message = await channel.read()
        if not isinstance(message, Data) or message.kind != b"D" or len(message.payload) > size:
            raise ProtocolViolation("the sandbox sent something else than the file's bytes")
        size -= len(message.payload)
        yield message.payload


def _starred(text: str, masker: Masker) -> str:
    """Return text from a sandbox as people may print it, with secrets starred.

    First of all: a secret that is cut, or has lost a character that cannot be printed, is no
    longer found. The supervisor, which knows no secrets, may have cut off the end already.
    """
    return plain(masker.beginning(text) if len(text) >= MAX_NAME else masker.text(text))


def plain(text: str) -> str:
    """Return text from a sandbox as people may print it."""
    return printable(text)[:MAX_NAME]
