"""Bytes from the worker on their way to a program's stdin."""

from __future__ import annotations

import os

from loop import OUT
from streams import OVERHEAD
from wire import PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from loop import Loop
    from streams import Stream

END_OF_FILE = b"\x04"
"""Ends a terminal's input, after handing over what precedes it in its line (termios(3))."""


class Input:
    """A program's stdin: a pipe's end, or a terminal's."""

    def __init__(self, stream: Stream, loop: Loop, fd: int, *, terminal: bool) -> None:
        self._stream = stream
        self._loop = loop
        self._fd: int | None = fd
        self._terminal = terminal
        self._pending = bytearray()
        self._uncounted = 0
        """How many of the pending bytes must not be granted again."""
        self._overhead = 0
        self._last = b"\n"
        self._finished = False

    @property
    def open(self) -> bool:
        """Whether more can be written."""
        return self._fd is not None and not self._finished

    def add(self, payload: bytes) -> None:
        """Write it as soon as the program takes it; drop it if the program reads no more."""
        if not self.open:
            self._stream.took(len(payload) + OVERHEAD)
            return
        self._overhead += OVERHEAD
        self._last = payload[-1:]
        self._pending += payload
        self._write(0)

    def finish(self) -> None:
        """Write only what is pending, then the end."""
        if not self.open:
            return
        self._finished = True
        if self._terminal:
            # In the middle of a line, the first one only hands over the line so far.
            ends = END_OF_FILE if self._last == b"\n" else 2 * END_OF_FILE
            self._pending += ends
        self._write(0)

    def meet(self) -> None:
        """Grant nothing for bytes of an earlier connection."""
        self._uncounted = len(self._pending)
        self._overhead = 0

    def close(self) -> None:
        """Close it."""
        if self._fd is not None:
            self._loop.ignore(self._fd)
            os.close(self._fd)
            self._fd = None
        self._gone(len(self._pending))

    def _write(self, _: int) -> None:
        while self._pending and self._fd is not None:
            try:
                with memoryview(self._pending) as pending, pending[:PIECE] as piece:
                    size = os.write(self._fd, piece)
            except BlockingIOError:
                self._loop.watch(self._fd, OUT, self._write)
                return
            except OSError:  # nobody reads any more
                self.close()
            else:
                self._gone(size)
        if self._fd is not None:
            self._loop.ignore(self._fd)
            if self._finished and not self._terminal:
                self.close()

    def _gone(self, size: int) -> None:
        del self._pending[:size]
        uncounted = min(self._uncounted, size)
        self._uncounted -= uncounted
        if not self._pending:
            size += self._overhead
            self._overhead = 0
        self._stream.took(size - uncounted)
