"""Frames of generation 2: a kind, a stream, a length, and a payload of that length.

`C` carries a command or an event as JSON, `D` a piece of a file, `O` and `E` pieces of a program's
stdout and stderr, `W` a number that is added to the stream's window. Nothing is decompressed, and
nothing names code.

Stream 0 is the sandbox itself; each `prepare` opens the next one, which belongs to that program.
The supervisor speaks on the stream of the command that it obeys.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from runner.words.errors import ProtocolViolation

SANDBOX = 0
"""The stream for everything that does not concern a program."""
PIECE = 64 * 1024
CONTROL = 256 * 1024
HEADER_FIELDS = {"kind": "c", "stream": "I", "length": "I"}
"""The header's fields in order, in the notation of the module `struct`; big-endian."""
HEADER = struct.Struct(">" + "".join(HEADER_FIELDS.values()))
GRANT = struct.Struct(">I")
"""The payload of a `W` frame."""
LONGEST = {b"C": CONTROL, b"D": PIECE, b"O": PIECE, b"E": PIECE, b"W": GRANT.size}
"""How long the payload of a frame may be, by kind. The shortest has one byte."""


@dataclass(frozen=True, slots=True)
class Data:
    """Pieces of bytes of one kind: `D`, `O` or `E`."""

    kind: bytes
    payload: bytes


def frame(kind: bytes, stream: int, payload: bytes) -> bytes:
    """Return the frame that carries this payload."""
    return HEADER.pack(kind, stream, len(payload)) + payload


def pieces(stream: int, content: bytes) -> Iterator[bytes]:
    """Return a file's bytes in frames."""
    view = memoryview(content)
    for start in range(0, len(view), PIECE):
        yield frame(b"D", stream, bytes(view[start : start + PIECE]))


def next_frame(buffer: bytearray, at: int, stream: int) -> tuple[bytes, int, int] | None:
    """Return the kind of the frame at `at` and where its payload is; None if it is incomplete.

    Raises ProtocolViolation as `any_frame` does, and for a frame of another stream.
    """
    if (found := any_frame(buffer, at)) is None:
        return None
    kind, spoken_on, start, end = found
    if spoken_on != stream:
        raise ProtocolViolation(
            f"the sandbox sent a frame {kind.decode()!r} with wrong stream: "
            f"{spoken_on}, and not {stream}"
        )
    return kind, start, end


def any_frame(buffer: bytearray | memoryview, at: int) -> tuple[bytes, int, int, int] | None:
    """Return kind and stream of the frame at `at`, and where its payload is; None if incomplete.

    Raises ProtocolViolation for an unknown kind, and for a length that the kind may not have, as
    soon as the header is there.
    """
    start = at + HEADER.size
    if len(buffer) < start:
        return None
    kind, stream, length = HEADER.unpack_from(buffer, at)
    longest = LONGEST.get(kind)
    if longest is None:
        raise ProtocolViolation(f"the sandbox sent a frame of the unknown kind {kind!r}")
    if not 0 < length <= longest:
        raise ProtocolViolation(
            f"the sandbox sent a frame {kind.decode()!r} with wrong length: "
            f"{length}, and not 1 to {longest}"
        )
    return (kind, stream, start, start + length) if len(buffer) >= start + length else None


class Splitter:
    """Splits what comes into frames. It copies each payload once, and an unfinished frame twice."""

    def __init__(self) -> None:
        self._begun = bytearray()
        """The beginning of a frame that is not whole yet."""

    def split(self, data: memoryview) -> Iterator[tuple[bytes, int, bytes, int]]:
        """Yield kind, stream and payload of each whole frame, and where in the data it ends.

        Raises what `any_frame` raises. Whoever stops early passes the rest of the data next time.
        """
        at = 0
        while self._begun and at < len(data):
            more = data[at : at + _lacking(self._begun)]
            self._begun += more
            at += len(more)
            if (found := any_frame(self._begun, 0)) is not None:
                kind, stream, start, _ = found
                payload = bytes(self._begun[start:])
                self._begun.clear()
                yield kind, stream, payload, at
        while (found := any_frame(data, at)) is not None:
            kind, stream, start, at = found
            yield kind, stream, bytes(data[start:at]), at
        self._begun += data[at:]


def _lacking(begun: bytearray) -> int:
    """Return how many bytes a frame lacks of which this is the beginning; first, of its header."""
    missing = HEADER.size - len(begun)
    return missing if missing > 0 else int(HEADER.unpack_from(begun)[2]) + missing
