"""Frames of generation 1: a kind, a stream, a length, and a payload of that length.

`C` carries a command or an event as JSON, `D` a piece of a file, `O` and `E` pieces of a program's
stdout and stderr. Nothing is decompressed, and nothing names code.

Stream 0 is the sandbox itself; each `prepare` opens the next one, which belongs to that program.
The supervisor speaks on the stream of the command that it obeys.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from runner.words.errors import ProtocolViolation

SANDBOX = 0
"""The stream of what concerns no program."""
PIECE = 64 * 1024
CONTROL = 256 * 1024
HEADER_FIELDS = {"kind": "c", "stream": "I", "length": "I"}
"""In their order, in the notation of the module `struct`; numbers are big-endian."""
HEADER = struct.Struct(">" + "".join(HEADER_FIELDS.values()))
LONGEST = {b"C": CONTROL, b"D": PIECE, b"O": PIECE, b"E": PIECE}
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
    """Return the kind of the frame there and where its payload is; None if it is not whole.

    Raises ProtocolViolation for a kind that does not exist, for a length that the kind may not have
    and for another stream than this one.
    """
    start = at + HEADER.size
    if len(buffer) < start:
        return None
    kind, spoken_on, length = HEADER.unpack_from(buffer, at)
    longest = LONGEST.get(kind)
    if longest is None:
        raise ProtocolViolation(f"the sandbox sent a frame of the unknown kind {kind!r}")
    if not 0 < length <= longest:
        raise ProtocolViolation(
            f"the sandbox sent a frame {kind.decode()!r} with wrong length: "
            f"{length}, and not 1 to {longest}"
        )
    if spoken_on != stream:
        raise ProtocolViolation(
            f"the sandbox sent a frame {kind.decode()!r} with wrong stream: "
            f"{spoken_on}, and not {stream}"
        )
    return (kind, start, start + length) if len(buffer) >= start + length else None
