"""The API's end of calls that go on for a while: processes, files, changes, ports."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from runner.door.call import DoorCall
from runner.door.calls import FinishCall, StoredCall
from runner.door.grants import Knock
from runner.door.replies import (
    ChangedReply,
    DoneReply,
    DrainedReply,
    EndedReply,
    FailedReply,
    FinishReply,
    GapReply,
    RaisedReply,
    Reply,
    ResultReply,
    RunEndedReply,
    ValueReply,
    raised,
)
from runner.door.wire import Chunk, DoorLine, Hung
from runner.words.errors import NodeAway, ProtocolViolation
from runner.words.execution import Stream
from runner.words.living import (
    FileChange,
    FileEntry,
    OutputGap,
    OutputPiece,
    ProcessEnd,
    ProcessInfo,
)

R = TypeVar("R", bound=Reply)
ApiLine: TypeAlias = DoorLine[DoorCall, Reply]
_OUTPUT = {b"O": Stream.STDOUT, b"E": Stream.STDERR}


class OpenCall:
    """The API's end of one connection, once the node has admitted its call."""

    def __init__(self, line: ApiLine) -> None:
        self._line = line

    async def hear(self) -> Reply | Chunk:
        """Return the next reply. Raises the failure that the node reports, and NodeAway."""
        with _away():
            reply = await self._line.hear()
        if isinstance(reply, FailedReply):
            raise raised(reply)
        return reply

    async def expect(self, kind: type[R]) -> R:
        """Return the next reply, which must be of this kind."""
        reply = await self.hear()
        if not isinstance(reply, kind):
            raise _out_of_turn(reply)
        return reply

    async def send(self, data: bytes) -> None:
        """Send bytes; returns once the node has taken most of them. Raises NodeAway."""
        with _away():
            await self._line.send(b"D", data)

    async def stored(self) -> None:
        """Say that the sandbox's row is stored. If the node has hung up, its answer says why."""
        with suppress(Hung):
            await self._line.tell(StoredCall())

    async def finish(self) -> None:
        """Send no more bytes. Raises NodeAway."""
        with _away():
            await self._line.tell(FinishCall())

    async def answered(self, chunks: AsyncIterable[bytes], kind: type[R]) -> R:
        """Send all the bytes, and return the answer of this kind.

        The node may answer before it has them all, to say why it does not want them.
        """
        sending = asyncio.create_task(self._send_all(chunks))
        answer = asyncio.create_task(self.expect(kind))
        try:
            await asyncio.wait({sending, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                await sending
            return await answer
        finally:
            for task in (sending, answer):
                task.cancel()
            await asyncio.gather(sending, answer, return_exceptions=True)

    async def _send_all(self, chunks: AsyncIterable[bytes]) -> None:
        async for chunk in chunks:
            try:
                await self._line.send(b"D", chunk)
            except Hung:
                # The node's answer says why, if it gave one.
                return
        with suppress(Hung):
            await self._line.tell(FinishCall())


Calling: TypeAlias = Callable[[Knock, DoorCall], AbstractAsyncContextManager[OpenCall]]
"""Knocks at the door with a call, which is open for a context."""


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except Hung as error:
        raise NodeAway("the node went away during a call") from error


class ProcessStream:
    """A process to which a call is attached: yields its output, writes its stdin.

    When the call ends, the process goes on.
    """

    def __init__(self, call: OpenCall, process: ProcessInfo, offset: int) -> None:
        self._call = call
        self.process = process
        """The process as it was when the call began."""
        self.offset = offset
        """Up to which byte its output has arrived; bytes that are no longer kept count."""
        self.end: ProcessEnd | None = process.end
        """How the process ended, if it has; known once `output` ends."""

    async def output(self) -> AsyncIterator[OutputPiece | OutputGap]:
        """Yield its output: until the process ends, or without `follow`, what is there so far."""
        while True:
            match await self._call.hear():
                case Chunk(kind, data) if kind in _OUTPUT:
                    start, self.offset = self.offset, self.offset + len(data)
                    yield OutputPiece(_OUTPUT[kind], start, data)
                case GapReply(omitted=omitted):
                    start, self.offset = self.offset, self.offset + omitted
                    yield OutputGap(start, omitted)
                case EndedReply(end=end):
                    self.end = end
                case DrainedReply():
                    pass
                case DoneReply():
                    return
                case reply:
                    raise _out_of_turn(reply)

    async def send(self, data: bytes) -> None:
        """Write to its stdin; waits while the process does not read."""
        await self._call.send(data)

    async def finish(self) -> None:
        """Close its stdin."""
        await self._call.finish()


RunPart: TypeAlias = Chunk | ValueReply | ResultReply | RaisedReply | GapReply | RunEndedReply


class RunStream:
    """Code that runs in a context. When the call ends early, the code is interrupted."""

    def __init__(self, call: OpenCall) -> None:
        self._call = call

    async def parts(self) -> AsyncIterator[RunPart]:
        """Yield what happens, in order: `runner.door.calls.RunCodeCall` says what may come."""
        while not isinstance(part := await self._call.hear(), DoneReply):
            if not isinstance(part, RunPart):
                raise _out_of_turn(part)
            yield part


class FileStream:
    """A file that is being read."""

    def __init__(self, call: OpenCall, file: FileEntry) -> None:
        self._call = call
        self.file = file

    async def chunks(self) -> AsyncIterator[bytes]:
        """Return its bytes."""
        while isinstance(reply := await self._call.hear(), Chunk):
            yield reply.data
        if not isinstance(reply, DoneReply):
            raise _out_of_turn(reply)


@dataclass(frozen=True, slots=True)
class FileListing:
    """The entries of a folder; with `more`, there are more than was asked for."""

    files: tuple[FileEntry, ...]
    more: bool


class ArchiveStream:
    """A folder that is being read as a tar archive."""

    def __init__(self, call: OpenCall) -> None:
        self._call = call

    async def chunks(self) -> AsyncIterator[bytes]:
        """Return the archive's bytes. Raises FileRefused if it could not be read to its end."""
        while isinstance(reply := await self._call.hear(), Chunk):
            yield reply.data
        if not isinstance(reply, DoneReply):
            raise _out_of_turn(reply)


@dataclass(frozen=True, slots=True)
class FileChanges:
    """Changes below a watched folder. With `lost`, more changed than is reported."""

    changes: tuple[FileChange, ...]
    lost: bool


class WatchStream:
    """A folder that is watched."""

    def __init__(self, call: OpenCall) -> None:
        self._call = call

    async def changes(self) -> AsyncIterator[FileChanges]:
        """Yield changes until the caller leaves."""
        while isinstance(reply := await self._call.hear(), ChangedReply):
            yield FileChanges(reply.changes, reply.lost)
        if not isinstance(reply, DoneReply):
            raise _out_of_turn(reply)


class PortStream:
    """A connection to a port inside a sandbox."""

    def __init__(self, call: OpenCall) -> None:
        self._call = call

    async def receive(self) -> bytes:
        """Return the next bytes; empty at their end."""
        match await self._call.hear():
            case Chunk(data=data):
                return data
            case FinishReply() | DoneReply():
                return b""
            case reply:
                raise _out_of_turn(reply)

    async def send(self, data: bytes) -> None:
        """Send bytes; waits while the server does not read."""
        await self._call.send(data)

    async def finish(self) -> None:
        """Send no more bytes."""
        await self._call.finish()


def _out_of_turn(reply: Reply | Chunk) -> ProtocolViolation:
    what = reply.name if isinstance(reply, Reply) else f"bytes {reply.kind!r}"
    return ProtocolViolation(f"the node sent {what} out of turn")
