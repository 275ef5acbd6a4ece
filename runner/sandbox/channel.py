"""The frames between worker and supervisor. Every byte read here comes from a hostile place.

A frame is a type (1 byte), a length (4 bytes, big-endian) and a payload. `C` carries a JSON
command or report of at most 256 KiB, `D`, `O` and `E` carry 1 to 65,536 bytes of a file, of
stdout and of stderr. Nothing is decompressed, nothing names code, and a report is checked field
by field against the type it claims to be. Any violation raises ProtocolViolation; the sandbox is
lost then.
"""

import asyncio
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, ClassVar, TypeAlias, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from runner.errors import ProtocolViolation
from runner.sandbox.pace import BYTE_S, FRAME_S, PIECE_S, REPORT_BYTE_S, REPORT_S, WAKING_S, Pace

VERSION = 4
PIECE = 64 * 1024
CONTROL = 256 * 1024
MAX_PATH = 1024
"""Bytes of an artifact's name. PostgreSQL keeps it in an index, whose rows hold 2,704 bytes."""
_HEADER = struct.Struct(">cI")
_BOUNDS = {b"C": CONTROL, b"D": PIECE, b"O": PIECE, b"E": PIECE}
_DIGITS = 19
_COUNT = Field(ge=0, lt=2**53)


class Report(BaseModel):
    """Something the supervisor says."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    name: ClassVar[str]


class Ready(Report):
    """The supervisor is up and waits for commands."""

    name = "ready"
    version: int


class Alive(Report):
    """The supervisor still waits for commands."""

    name = "alive"


class Loaded(Report):
    """The image's list of modules is imported, but for those named."""

    name = "loaded"
    failed: list[str] = Field(max_length=100)


class Cleaned(Report):
    """Nothing of the last run is left, but for the kinds of things named."""

    name = "cleaned"
    left: list[str] = Field(max_length=100)


class Placed(Report):
    """An input file is in its place."""

    name = "placed"


class NotPlaced(Report):
    """An input file could not be written: the name of an errno."""

    name = "not_placed"
    error: str = Field(pattern=r"^E[A-Z0-9]{1,20}$")


class Started(Report):
    """The program runs."""

    name = "started"


class NotStarted(Report):
    """The program could not be executed: the name of an errno."""

    name = "not_started"
    error: str = Field(pattern=r"^E[A-Z0-9]{1,20}$")


class Counted(Report):
    """How many bytes each output has carried so far, including those dropped."""

    name = "counted"
    stdout: int = _COUNT
    stderr: int = _COUNT


class Ended(Report):
    """The program and everything it started are gone."""

    name = "ended"
    exit_code: int | None = Field(ge=0, le=255)
    signal: int | None = Field(ge=1, le=64)
    stdout: int = _COUNT
    stderr: int = _COUNT
    disk_full: bool


def _bounded(path: str) -> str:
    if len(path.encode(errors="surrogatepass")) > MAX_PATH:
        raise ValueError(f"longer than {MAX_PATH} bytes")
    return path


class Offered(Report):
    """A file follows, in `D` frames of `size` bytes together."""

    name = "artifact"
    path: Annotated[str, Field(min_length=1), AfterValidator(_bounded)]
    size: int = _COUNT


class Collected(Report):
    """Every file was handed back or refused; of the refused, the first fifty are named."""

    name = "collected"
    refused: list[tuple[str, str]] = Field(max_length=50)
    refused_total: int = _COUNT


REPORTS: Mapping[str, TypeAdapter[Any]] = {
    kind.name: TypeAdapter(kind)
    for kind in (
        Ready,
        Alive,
        Loaded,
        Cleaned,
        Placed,
        NotPlaced,
        Started,
        NotStarted,
        Counted,
        Ended,
        Offered,
        Collected,
    )
}


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of bytes: kind `D`, `O` or `E`."""

    kind: bytes
    payload: bytes


Message: TypeAlias = Report | Data
R = TypeVar("R", bound=Report)


class Closed(ProtocolViolation):
    """The supervisor's end of the connection is closed: the container has died."""


class Channel:
    """The worker's end of the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._reading = cast("asyncio.ReadTransport", writer.transport)
        self._buffer = bytearray()
        self._pace = Pace()
        self.heard = 0
        """How many bytes have come."""

    @property
    def closed(self) -> bool:
        """Whether the other end has hung up and nothing of it is left to read."""
        return self._reader.at_eof()

    async def read(self) -> Message:
        """Return the next message. Raises Closed at the end, ProtocolViolation on nonsense.

        Pieces of one kind that have come already are returned as one, of 65,536 bytes at most.
        """
        if self._pace.overdrawn:
            await self._rest()
        while (frame := self._frame(0)) is None:
            await self._hear()
        kind, start, end = frame
        payload = bytes(self._buffer[start:end])
        if kind == b"C":
            del self._buffer[:end]
            self._pace.charge(REPORT_S + REPORT_BYTE_S * len(payload))
            return parse(payload)
        pieces, size, frames = [payload], len(payload), 1
        while (more := self._frame(end)) is not None and more[0] == kind:
            _, start, last = more
            if size + last - start > PIECE:
                break
            pieces.append(bytes(self._buffer[start:last]))
            size, frames, end = size + last - start, frames + 1, last
        del self._buffer[:end]
        self._pace.charge(PIECE_S + FRAME_S * frames + BYTE_S * size)
        return Data(kind, b"".join(pieces))

    def _frame(self, at: int) -> tuple[bytes, int, int] | None:
        """Return the kind of the frame there and where its payload is; None if it is not whole."""
        start = at + _HEADER.size
        if len(self._buffer) < start:
            return None
        kind, length = _HEADER.unpack_from(self._buffer, at)
        bound = _BOUNDS.get(kind)
        if bound is None or not 0 < length <= bound:
            raise ProtocolViolation(f"the sandbox sent a frame {kind!r} of {length} bytes")
        return (kind, start, start + length) if len(self._buffer) >= start + length else None

    async def _hear(self) -> None:
        try:
            data = await self._reader.read(PIECE)
        except ConnectionError as error:
            raise Closed("the sandbox closed its connection") from error
        if not data:
            raise Closed("the sandbox closed its connection")
        self._pace.charge(WAKING_S)
        self._buffer += data
        self.heard += len(data)

    async def _rest(self) -> None:
        # What comes meanwhile stays in the kernel, or it would wake the loop each time.
        transport = self._reading
        if paused := transport.is_reading():
            transport.pause_reading()
        try:
            await self._pace.rest()
        finally:
            if paused:
                transport.resume_reading()

    async def expect(self, kind: type[R]) -> R:
        """Return the next message, which must be a report of this kind."""
        message = await self.read()
        if not isinstance(message, kind):
            raise unexpected(message)
        return message

    async def send(self, do: str, *contents: bytes, **facts: object) -> None:
        """Send a command, with the pieces of what it announces right behind it.

        Raises ValueError when it is longer than a command may be.
        """
        payload = json.dumps({"do": do, **facts}).encode()
        if len(payload) > CONTROL:
            raise ValueError(f"a command of {len(payload)} bytes; {CONTROL} are possible")
        # Gathered: to write to a sandbox wakes it, which costs more than the writing.
        gathered = _frame(b"C", payload)
        for piece in chain.from_iterable(map(_pieces, contents)):
            if len(gathered) + len(piece) > PIECE:
                await self._write(gathered)
                gathered = b""
            gathered += piece
        await self._write(gathered)

    async def send_bytes(self, content: bytes) -> None:
        """Send the pieces of a transfer."""
        for piece in _pieces(content):
            await self._write(piece)

    async def _write(self, frames: bytes) -> None:
        try:
            self._writer.write(frames)
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise Closed("the sandbox closed its connection") from error

    def close(self) -> None:
        """Hang up at once."""
        self._writer.transport.abort()


def _frame(kind: bytes, payload: bytes) -> bytes:
    return _HEADER.pack(kind, len(payload)) + payload


def _pieces(content: bytes) -> Iterator[bytes]:
    view = memoryview(content)
    for start in range(0, len(view), PIECE):
        yield _frame(b"D", bytes(view[start : start + PIECE]))


def parse(payload: bytes) -> Report:
    """Return the report these bytes are, or raise ProtocolViolation."""
    try:
        value = json.loads(
            payload.decode("utf-8"),
            object_pairs_hook=_no_repetition,
            parse_constant=_refuse,
            parse_int=_short_int,
            parse_float=_refuse,
        )
    except (ValueError, RecursionError) as error:
        raise ProtocolViolation("the sandbox sent a report that is not JSON of ours") from error
    if not isinstance(value, dict):
        raise ProtocolViolation("the sandbox sent a report that is not an object")
    name = value.pop("say", None)
    adapter = REPORTS.get(name) if isinstance(name, str) else None
    if adapter is None:
        raise ProtocolViolation("the sandbox sent a report of no known kind")
    try:
        # Tuples do not exist in JSON: validate as JSON, strictly.
        report: Report = adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        fields = ", ".join(str(item["loc"]) for item in error.errors()[:3])
        raise ProtocolViolation(
            f"the sandbox sent a {name} report with wrong fields: {fields}"
        ) from None
    return report


def unexpected(message: Message) -> ProtocolViolation:
    """Return the failure for a message that has no place where it came."""
    what = message.name if isinstance(message, Report) else f"piece {message.kind!r}"
    return ProtocolViolation(f"the sandbox sent a {what} out of turn")


def _no_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _short_int(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError("an integer of more than 64 bits")
    return int(text)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} has no place in a report")
