"""Frames between supervisor and worker: kind (1 byte), stream and length (4 bytes each), payload.

Numbers are big-endian. `C` is a JSON command or event, `D` a piece of the file under way, `O` and
`E` pieces of the program's two outputs. `runner/protocol/generations` describes each generation
whole, and tests hold this end to it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Any

    from sockets import Socket

GENERATIONS = (2,)
"""Of the protocol: those that this supervisor speaks."""
SOCKET = "/run/sandbox/supervisor.sock"
GREETING = struct.Struct(">cI")
"""The header of the first exchange, which is the same in every generation."""
HEADER = struct.Struct(">cII")
PIECE = 64 * 1024
CONTROL = 256 * 1024


class Disconnected(Exception):
    """The worker is gone, and with it the reason to be here."""


class Wire:
    """The connection to the worker. No more is read than a frame holds: the next may be another's.

    Everything here blocks; while the program runs, `relay.Outbox` writes instead.
    """

    def __init__(self, connection: Socket) -> None:
        self.socket = connection
        self.stream = 0
        """That of the command that is obeyed, on which everything is said."""
        self._incoming = bytearray()

    def greet(self) -> None:
        """Offer the generations spoken here, and hear which one it is."""
        offer = json.dumps({"say": "greeting", "generations": GENERATIONS}).encode()
        self.socket.sendall(GREETING.pack(b"C", len(offer)) + offer)
        _, length = GREETING.unpack(self._exactly(GREETING.size))
        answer = json.loads(self._exactly(length))
        if answer["generation"] not in GENERATIONS:
            raise Disconnected

    def _exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            piece = self.socket.recv(size - len(got))
            if not piece:
                raise Disconnected
            got += piece
        return got

    def receive(self) -> tuple[bytes, bytes]:
        """Block until the next whole frame and return its type and payload."""
        while (frame := self.next_frame()) is None:
            pass
        return frame

    def next_frame(self) -> tuple[bytes, bytes] | None:
        """Read once; return the frame if it is whole with that. Blocks only if the socket does."""
        length = 0
        if len(self._incoming) >= HEADER.size:
            _, _, length = HEADER.unpack_from(self._incoming)
            if length > CONTROL:
                raise Disconnected
        data = self.socket.recv(HEADER.size + length - len(self._incoming))
        if not data:
            raise Disconnected
        self._incoming += data
        if len(self._incoming) < HEADER.size:
            return None
        kind, stream, length = HEADER.unpack_from(self._incoming)
        if len(self._incoming) < HEADER.size + length:
            return None
        payload = bytes(self._incoming[HEADER.size :])
        self._incoming.clear()
        self.stream = stream
        return kind, payload

    def send(self, kind: bytes, payload: bytes) -> None:
        """Send a frame."""
        self.socket.sendall(HEADER.pack(kind, self.stream, len(payload)) + payload)

    def say(self, event: str, **facts: object) -> None:
        """Send an event."""
        self.send(b"C", json.dumps({"say": event, **facts}).encode())

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
