"""An archive on its way into the object store: how large it is, and its hash."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator

from runner.secrets.streams import sealed_size
from runner.store.ledger import Room


class Measured:
    """Counts bytes that pass, and computes their SHA-256 sum."""

    def __init__(self, room: Room) -> None:
        self.size = 0
        self._room = room
        self._sum = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Return the sum of what went by."""
        return self._sum.hexdigest()

    async def passing(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks. Raises StorageFull beyond the most that there may be."""
        async for chunk in chunks:
            self.size += len(chunk)
            if sealed_size(self.size) > self._room.bytes:
                raise self._room.full(self.size)
            self._sum.update(chunk)
            yield chunk
