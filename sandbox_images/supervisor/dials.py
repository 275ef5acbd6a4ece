"""A connection to a port of the sandbox's own loopback, carried over a stream."""

from __future__ import annotations

import errno

from loop import IN, OUT
from sockets import AF_INET, AF_INET6, SHUT_WR, SO_ERROR, SOCK_STREAM, SOL_SOCKET, Socket
from streams import OVERHEAD, Stream
from wire import PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Any

    from loop import Loop
    from streams import Streams

LOOPBACKS = ((AF_INET, "127.0.0.1"), (AF_INET6, "::1"))


class Dial(Stream):
    """One connection. Each direction ends separately; the stream ends after both."""

    def __init__(self, streams: Streams, number: int, loop: Loop, command: dict[str, Any]) -> None:
        super().__init__(streams, number)
        self._loop = loop
        self._port: int = command["port"]
        self._left = list(LOOPBACKS)
        self._socket: Socket | None = None
        self._connected = False
        self._pending = bytearray()
        self._overhead = 0
        self._finished = False
        """Whether the worker sends no more."""
        self._writing = self._reading = True

    def take(self, payload: bytes) -> None:
        """Take bytes for the port."""
        self._pending += payload
        self._overhead += OVERHEAD
        self._go_on()

    def obey(self, command: dict[str, Any]) -> None:
        """Learn that no more bytes follow."""
        if command["do"] != "finish":
            super().obey(command)
        self._finished = True
        self._go_on()

    def step(self) -> bool:
        """Begin, or go on with another window."""
        if self._socket is None:
            self._connect(errno.ECONNREFUSED)
        else:
            self._go_on()
        return False

    def release(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._loop.ignore(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _connect(self, error: int) -> None:
        """Try the next address. If none is left, fail with the last one's error."""
        while self._left:
            family, address = self._left.pop(0)
            try:
                self._socket = Socket(family, SOCK_STREAM)
                self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
                error = self._socket.connect_ex((address, self._port))
            except OSError as problem:
                error = problem.errno or errno.EIO
            else:
                if error in {0, errno.EINPROGRESS}:
                    self._loop.watch(self._socket.fileno(), OUT, self._arrived)
                    return
            self.release()
        self.end("failed", error=errno.errorcode.get(error, "EIO"))

    def _arrived(self, _: int) -> None:
        if self._socket is None:
            return
        if error := self._socket.getsockopt(SOL_SOCKET, SO_ERROR):
            self.release()
            self._connect(error)
        else:
            self._connected = True
            self.say("connected")
            self._go_on()

    def _happened(self, events: int) -> None:
        if self._reading and self.window > 0 and events & ~OUT:
            self._read()
        self._go_on()

    def _go_on(self) -> None:
        """Write what can be written, then wait for the events that may follow."""
        if not self._connected or self._socket is None:
            return
        self._write(self._socket)
        wanted = OUT if self._pending else 0
        if self._reading and self.window > 0:
            wanted |= IN
        if not self._reading and not self._writing:
            self.end("done", more=False)
        elif wanted:
            self._loop.watch(self._socket.fileno(), wanted, self._happened)
        else:
            self._loop.ignore(self._socket.fileno())

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:  # reset: nothing more comes
            data = b""
        if data:
            self.send(b"D", data)
        else:
            self._reading = False
            self.say("finish")

    def _write(self, connection: Socket) -> None:
        while self._pending and self._writing:
            try:
                size = connection.send(self._pending)
            except BlockingIOError:
                return
            except OSError:  # nobody reads it any more
                self._writing = False
            else:
                self._gone(size)
        self._gone(len(self._pending))
        if self._finished and self._writing:
            self._writing = False
            try:
                connection.shutdown(SHUT_WR)
            except OSError:
                self._reading = False

    def _gone(self, size: int) -> None:
        del self._pending[:size]
        if not self._pending:
            size += self._overhead
            self._overhead = 0
        if size:
            self.took(size)
