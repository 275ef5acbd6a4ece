"""Listens on a connection while its call is answered."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeAlias

from runner.door.call import DoorCall
from runner.door.calls import FinishCall
from runner.door.replies import Reply
from runner.door.wire import Chunk, DoorLine
from runner.words.errors import ProtocolViolation

NodeLine: TypeAlias = DoorLine[Reply, DoorCall]


@dataclass(slots=True)
class Incoming:
    """The bytes that a caller sends until `finish`. Iterate over it once."""

    line: NodeLine
    size: int = 0
    """How many have come."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield pieces as they come. Raises ProtocolViolation for anything else."""
        while isinstance(said := await self.line.hear(), Chunk):
            self.size += len(said.data)
            yield said.data
        if not isinstance(said, FinishCall):
            raise out_of_turn(said)


async def nothing_more(line: NodeLine) -> None:
    """Wait for the caller to hang up, and raise Hung; ProtocolViolation if it says anything."""
    raise out_of_turn(await line.hear())


def out_of_turn(said: DoorCall | Chunk) -> ProtocolViolation:
    """Return the failure for a message that has no place in a call."""
    what = said.name if isinstance(said, DoorCall) else "bytes"
    return ProtocolViolation(f"the API sent {what} out of turn")
