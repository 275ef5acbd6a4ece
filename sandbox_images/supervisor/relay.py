"""The program's outputs on their way to the worker, through one buffer that is wiped after a run.

PID 1 lives on when a sandbox serves its tenant's next run, and what is forked from it then sees
all of its memory: no output may be left there.
"""

from __future__ import annotations

import contextlib
import json
import os

from wire import HEADER, PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from sockets import Socket

BACKLOG = 256 * 1024
ROOM = BACKLOG + 2 * (HEADER.size + PIECE)


class Outbox:
    """Bytes to send, in order. Read no more while it is `full`."""

    def __init__(self, connection: Socket, stream: int) -> None:
        self._socket = connection
        self._stream = stream
        self._buffer = bytearray(ROOM)
        self._view = memoryview(self._buffer)
        self._start = self._end = self._used = 0

    @property
    def empty(self) -> bool:
        """Whether all is sent."""
        return self._start == self._end

    @property
    def full(self) -> bool:
        """Whether so much waits that the program has to."""
        return self._end - self._start >= BACKLOG

    def say(self, event: str, **facts: object) -> None:
        """Queue an event, which holds none of the program's bytes."""
        payload = json.dumps({"say": event, **facts}).encode()
        self._make_room()
        begin = self._end + HEADER.size
        self._view[begin : begin + len(payload)] = payload
        self._close_frame(b"C", len(payload))

    def take(self, source: int, kind: bytes, allowance: int) -> int:
        """Read a piece and queue what the allowance covers; return how much was read."""
        self._make_room()
        begin = self._end + HEADER.size
        size = os.readv(source, [self._view[begin : begin + PIECE]])
        self._used = max(self._used, begin + size)
        if kept := min(size, allowance):
            self._close_frame(kind, kept)
        return size

    def flush(self) -> None:
        """Send what the socket takes; all of it when it blocks."""
        with contextlib.suppress(BlockingIOError):
            while not self.empty:
                self._start += self._socket.send(self._view[self._start : self._end])

    def wipe(self) -> None:
        """Forget every byte that went through."""
        self._view[: self._used] = bytes(self._used)
        self._start = self._end = self._used = 0

    def _make_room(self) -> None:
        if self.empty:
            self._start = self._end = 0
        elif ROOM - self._end < HEADER.size + PIECE:
            waiting = self._end - self._start
            self._view[:waiting] = self._view[self._start : self._end]
            self._start, self._end = 0, waiting

    def _close_frame(self, kind: bytes, length: int) -> None:
        HEADER.pack_into(self._buffer, self._end, kind, self._stream, length)
        self._end += HEADER.size + length
        self._used = max(self._used, self._end)
