"""Input files on their way into a sandbox."""

from collections.abc import AsyncIterator, Callable, Sequence

from runner.protocol.commands import PlaceFile
from runner.protocol.events import NotPlaced, Placed
from runner.sandbox.guest.channel import Channel, unexpected
from runner.words.errors import SandboxFault
from runner.words.execution import InputFile, StoredObject

Reader = Callable[[StoredObject], AsyncIterator[bytes]]
"""Yields a stored object's bytes: as many as it says, or an exception."""


def nothing_stored(stored: StoredObject) -> AsyncIterator[bytes]:
    """Refuse to read: for those who have no object store, and no such files."""
    raise ValueError(f"no object store to read {stored.object_key} from")


async def place(channel: Channel, files: Sequence[InputFile], read: Reader) -> None:
    """Send files to the supervisor, one by one. Raises SandboxFault when one does not fit."""
    for file in files:
        if isinstance(file.content, StoredObject):
            await channel.send(PlaceFile(file.path, file.size))
            async for piece in read(file.content):
                await channel.send_bytes(piece)
        else:
            await channel.send(PlaceFile(file.path, file.size), file.content)
        answer = await channel.read()
        if isinstance(answer, NotPlaced):
            raise SandboxFault(f"input file {file.path!r} not placed: {answer.error}")
        if not isinstance(answer, Placed):
            raise unexpected(answer)
