"""Input files on their way into a sandbox."""

from collections.abc import AsyncIterator, Callable

from runner.models import InputFile, StoredObject

Reader = Callable[[StoredObject], AsyncIterator[bytes]]
"""Yields a stored object's bytes: as many as it says, or an exception."""


def nothing_stored(stored: StoredObject) -> AsyncIterator[bytes]:
    """Refuse to read: for those who have no object store, and no such files."""
    raise ValueError(f"no object store to read {stored.object_key} from")


async def bytes_of(file: InputFile, read: Reader) -> AsyncIterator[bytes]:
    """Yield a file's bytes in pieces."""
    if isinstance(file.content, StoredObject):
        async for piece in read(file.content):
            yield piece
    else:
        yield file.content
