"""The connection of a sandbox that lives: many streams at once, and none waits for another.

As fast as the worker takes bytes, each stream in turn is asked for one piece to send. A stream
sends no more than its reader has granted.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections import deque

from wire import CONTROL, HEADER, PIECE, Disconnected

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Any

    from sockets import Socket

WINDOW = 256 * 1024
OVERHEAD = 64
"""What a frame takes from a window in addition to its payload."""
GRANT = struct.Struct(">I")
GRANT_AT = WINDOW // 4
"""Once this much was taken, it is granted again."""
BACKLOG = 256 * 1024
"""How many bytes may wait for the worker before no stream is asked for more."""
STEPS = 64
"""How many pieces are asked for before the loop looks for other events."""


class Link:
    """The non-blocking socket: receives frames, and keeps those that wait to be sent."""

    def __init__(self, connection: Socket) -> None:
        connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.socket = connection
        self._closed = False
        self._incoming = bytearray()
        self._outgoing = bytearray()

    @property
    def waiting(self) -> bool:
        """Whether bytes wait to be sent."""
        return bool(self._outgoing)

    @property
    def full(self) -> bool:
        """Whether so many bytes wait that streams must stop."""
        return len(self._outgoing) >= BACKLOG

    def receive(self) -> list[tuple[bytes, int, bytes]]:
        """Read once; return kind, stream and payload of each frame that is whole now."""
        frames: list[tuple[bytes, int, bytes]] = []
        try:
            data = self.socket.recv(2 * PIECE)
        except BlockingIOError:
            return frames
        if not data:
            raise Disconnected
        self._incoming += data
        at = 0
        with memoryview(self._incoming) as incoming:
            while len(incoming) - at >= HEADER.size:
                kind, stream, length = HEADER.unpack_from(incoming, at)
                if length > CONTROL:
                    raise ValueError(f"a frame of {length} bytes")
                start = at + HEADER.size
                if len(incoming) - start < length:
                    break
                at = start + length
                frames.append((kind, stream, bytes(incoming[start:at])))
        del self._incoming[:at]
        return frames

    def send(self, kind: bytes, stream: int, payload: bytes | memoryview) -> None:
        """Queue a frame, if the worker is there."""
        if self._closed:
            return
        self._outgoing += HEADER.pack(kind, stream, len(payload))
        self._outgoing += payload

    def flush(self) -> None:
        """Send as much as the socket takes."""
        with contextlib.suppress(BlockingIOError):
            while self._outgoing:
                with memoryview(self._outgoing) as waiting:
                    sent = self.socket.send(waiting)
                del self._outgoing[:sent]

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        self._outgoing.clear()
        self.socket.close()


def said(event: str, facts: dict[str, object]) -> bytes:
    """Return an event in the form in which it is sent."""
    return json.dumps({"say": event, **facts}).encode()


class Stream:
    """One thing that the worker wants, from its command to the event that ends it.

    It works in `step`, in pieces so small that nobody has to wait long.
    """

    stays = False
    """Whether it outlasts the connection."""

    def __init__(self, streams: Streams, number: int) -> None:
        self.streams = streams
        self.number = number
        self.window = WINDOW
        self.queued = False
        """Whether it waits to be asked for a step."""
        self._taken = 0

    def step(self) -> bool:
        """Do a piece of the work; return whether more can be done now."""
        return False

    def obey(self, command: dict[str, Any]) -> None:
        """Obey a command on this open stream."""
        raise ValueError(f"{command['do']} has no place on this stream")

    def take(self, payload: bytes) -> None:
        """Take bytes from the worker; call `took` once they are used up."""
        self.took(len(payload) + OVERHEAD)

    def cancel(self) -> None:
        """End at once."""
        self.end("done", more=False)

    def release(self) -> None:
        """Release what it holds. Called once, however it ends."""

    def say(self, event: str, **facts: object) -> None:
        """Send an event."""
        self.streams.say(self.number, event, **facts)

    def tell(self, event: str, **facts: object) -> None:
        """Send an event that counts against the window, which must be open."""
        self.send(b"C", said(event, facts))

    def send(self, kind: bytes, payload: bytes | memoryview) -> None:
        """Send bytes; the window must be open."""
        self.window -= len(payload) + OVERHEAD
        self.streams.link.send(kind, self.number, payload)

    def took(self, size: int) -> None:
        """Let the worker send this much more, as soon as that is worth a frame.

        Nothing may be sent about a stream that has ended: what it still held is dropped.
        """
        self._taken += size
        if self._taken >= GRANT_AT and self.streams.open.get(self.number) is self:
            self.streams.link.send(b"W", self.number, GRANT.pack(self._taken))
            self._taken = 0

    def meet(self) -> None:
        """Begin again with another connection."""
        self.window = WINDOW
        self._taken = 0

    def end(self, event: str, **facts: object) -> None:
        """Say how it ended; this stream says nothing afterwards."""
        self.say(event, **facts)
        self.streams.drop(self)


class Streams:
    """The open streams, by number, and the turns of those that have work."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.open: dict[int, Stream] = {}
        self._ready: deque[Stream] = deque()

    @property
    def busy(self) -> bool:
        """Whether there is work that needs no event."""
        return bool(self._ready) and not self.link.full

    def add(self, stream: Stream) -> None:
        """Add a stream, and ask it for its first step."""
        self.open[stream.number] = stream
        self.wake(stream)

    def wake(self, stream: Stream) -> None:
        """Queue a stream for a step."""
        if not stream.queued:
            stream.queued = True
            self._ready.append(stream)

    def grant(self, number: int, size: int) -> None:
        """Let a stream send this much more."""
        if (stream := self.open.get(number)) is not None:
            stream.window += size
            self.wake(stream)

    def drop(self, stream: Stream) -> None:
        """Forget a stream, and release all that it holds."""
        del self.open[stream.number]
        stream.release()

    def hang_up(self) -> None:
        """Forget every stream that does not outlast the connection. Nothing more is sent."""
        self.link.close()
        for stream in list(self.open.values()):
            if not stream.stays:
                self.drop(stream)

    def meet(self, link: Link) -> None:
        """Go on with another connection."""
        self.link = link
        for stream in self.open.values():
            stream.meet()

    def say(self, number: int, event: str, **facts: object) -> None:
        """Send an event."""
        self.link.send(b"C", number, said(event, facts))

    def advance(self) -> None:
        """Ask each stream in turn for a piece, as long as there is room."""
        for _ in range(STEPS):
            if not self.busy:
                return
            stream = self._ready.popleft()
            stream.queued = False
            if self.open.get(stream.number) is stream and stream.step():
                self.wake(stream)
