"""Frames: a type (1 byte), a length (4 bytes, big-endian) and a payload.

`C` carries a JSON command or report of at most 256 KiB, `D`, `O` and `E` carry 1 to 65,536 bytes of
a file, of stdout and of stderr. Nothing is decompressed, and nothing names code.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from runner.words.errors import ProtocolViolation

PIECE = 64 * 1024
CONTROL = 256 * 1024
_HEADER = struct.Struct(">cI")
_BOUNDS = {b"C": CONTROL, b"D": PIECE, b"O": PIECE, b"E": PIECE}


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of bytes: kind `D`, `O` or `E`."""

    kind: bytes
    payload: bytes


def frame(kind: bytes, payload: bytes) -> bytes:
    """Return the frame that carries this payload."""
    return _HEADER.pack(kind, len(payload)) + payload


def pieces(content: bytes) -> Iterator[bytes]:
    """Return a file's bytes in frames."""
    view = memoryview(content)
    for start in range(0, len(view), PIECE):
        yield frame(b"D", bytes(view[start : start + PIECE]))


def next_frame(buffer: bytearray, at: int) -> tuple[bytes, int, int] | None:
    """Return the kind of the frame there and where its payload is; None if it is not whole.

    Raises ProtocolViolation for a kind that there is not, and a length that the kind may not have.
    """
    start = at + _HEADER.size
    if len(buffer) < start:
        return None
    kind, length = _HEADER.unpack_from(buffer, at)
    bound = _BOUNDS.get(kind)
    if bound is None or not 0 < length <= bound:
        raise ProtocolViolation(f"the sandbox sent a frame {kind!r} of {length} bytes")
    return (kind, start, start + length) if len(buffer) >= start + length else None
