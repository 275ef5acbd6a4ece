"""A reader of a process's output, from an offset on."""

from __future__ import annotations

import errno
import time

from streams import Stream
from wire import PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Protocol

    from logs import Log
    from streams import Streams

    class Written(Protocol):
        """A process, as far as its readers know it."""

        log: Log
        put_out: int | None
        readers: list[Reader]

        def go_on(self) -> None:
            """Read on what it writes."""


PATIENCE_S = 10.0
"""How long a process waits for a reader that takes nothing."""


class Reader(Stream):
    """Sends the kept output of a process, and with `follow` also what comes later."""

    def __init__(
        self, streams: Streams, number: int, process: Written, offset: int, *, follow: bool
    ) -> None:
        super().__init__(streams, number)
        self.offset = offset
        self._process = process
        self._until = None if follow else process.log.total
        self._took_at = time.monotonic()
        process.readers.append(self)

    def keeps_up(self, now: float) -> bool:
        """Return whether it has lately taken something, or had taken all that there was."""
        return now - self._took_at < PATIENCE_S

    def heard(self, before: int) -> None:
        """Learn that there is output after this offset."""
        if self.offset == before:
            self._took_at = time.monotonic()
        self.streams.wake(self)

    def step(self) -> bool:
        """Send a piece."""
        log, put_out = self._process.log, self._process.put_out
        until = log.total if put_out is None else put_out
        if self._until is not None:
            until = self._until
        if self.offset < min(log.start, until) and self.window > 0:
            omitted = min(log.start, until) - self.offset
            self.tell("gap", omitted=omitted)
            self._go_to(self.offset + omitted)
        if self.offset < until:
            if self.window <= 0:
                return False
            kind, piece = log.piece(self.offset, min(PIECE, until - self.offset))
            self.send(kind, piece)
            self._go_to(self.offset + len(piece))
            return True
        if self._until is not None or put_out is not None:
            self.leave()
        return False

    def leave(self) -> None:
        """End at what was sent so far."""
        self.end("drained", offset=self.offset)

    def release(self) -> None:
        """Let the process go on without it."""
        self._process.readers.remove(self)
        self._process.go_on()

    def _go_to(self, offset: int) -> None:
        self.offset = offset
        self._took_at = time.monotonic()
        self._process.go_on()


def attach(
    streams: Streams, number: int, process: Written | None, offset: int, *, follow: bool
) -> None:
    """Let a reader begin, if the process has that offset."""
    if process is None or offset > process.log.total:
        error = errno.ESRCH if process is None else errno.EINVAL
        refused = Stream(streams, number)
        streams.add(refused)
        refused.end("failed", error=errno.errorcode[error])
    else:
        streams.add(Reader(streams, number, process, offset, follow=follow))
