"""Frames between supervisor and worker: type (1 byte), length (4 bytes, big-endian), payload.

`C` is a JSON command or report, `D` a piece of the file under way, `O` and `E` pieces of the
program's two outputs.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Any

HEADER = struct.Struct(">cI")
PIECE = 64 * 1024
CONTROL = 256 * 1024


class Disconnected(Exception):
    """The worker is gone, and with it the reason to be here."""


class Wire:
    """The connection to the worker."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.incoming = bytearray()
        self.outgoing = bytearray()

    def receive(self) -> tuple[bytes, bytes]:
        """Block until the next whole frame and return its type and payload."""
        while (frame := self.next_frame()) is None:
            self.fill()
        return frame

    def next_frame(self) -> tuple[bytes, bytes] | None:
        """Return the next whole frame that has arrived, or None."""
        if len(self.incoming) < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(self.incoming)
        if length > CONTROL:
            raise Disconnected
        end = HEADER.size + length
        if len(self.incoming) < end:
            return None
        payload = bytes(self.incoming[HEADER.size : end])
        del self.incoming[:end]
        return kind, payload

    def fill(self) -> None:
        """Read what the worker sent; blocks only when the socket does."""
        data = self.socket.recv(PIECE)
        if not data:
            raise Disconnected
        self.incoming += data

    def queue(self, kind: bytes, payload: bytes) -> None:
        """Add a frame to what is to be sent."""
        self.outgoing += HEADER.pack(kind, len(payload))
        self.outgoing += payload

    def say(self, report: str, **facts: object) -> None:
        """Queue a report."""
        self.queue(b"C", json.dumps({"say": report, **facts}).encode())

    def flush(self) -> None:
        """Send what is queued, as far as the socket takes it."""
        while self.outgoing:
            sent = self.socket.send(self.outgoing)
            del self.outgoing[:sent]

    def command(self) -> dict[str, Any]:
        """Block until the next command and return it."""
        kind, payload = self.receive()
        if kind != b"C":
            raise Disconnected
        command: dict[str, Any] = json.loads(payload)
        return command

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the pieces of a transfer of `size` bytes."""
        while size > 0:
            kind, payload = self.receive()
            if kind != b"D" or not 0 < len(payload) <= size:
                raise Disconnected
            size -= len(payload)
            yield payload
