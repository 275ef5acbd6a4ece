"""The only way out: connections to 127.0.0.1:3128 carried to the egress proxy's unix socket.

Nothing is read into them here. The proxy outside knows this sandbox by the socket, decides, and
is believed; what the program does to this end it does to its own connections.
"""

from __future__ import annotations

import contextlib
import os
import select

from sockets import AF_UNIX, SHUT_WR, SO_REUSEADDR, SOL_SOCKET, Socket, accept

ADDRESS = ("127.0.0.1", 3128)
SOCKET = "/run/sandbox/egress.sock"
TRUST = "/tmp/.egress/trusted.pem"  # noqa: S108 - the sandbox's own tmpfs
SYSTEM_TRUST = "/etc/ssl/certs/ca-certificates.crt"
PIECE = 64 * 1024
MAX_CONNECTIONS = 128
GONE = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


class End:
    """One side of a connection: what it still has to be sent, and which directions are open."""

    def __init__(self, connection: Socket) -> None:
        connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.socket = connection
        self.other: End
        self.pending = b""
        self.reading = True
        self.writing = True

    def interest(self) -> int:
        """Return the events to wait for: no more is read than the other side takes."""
        events = select.POLLOUT if self.pending else 0
        if self.reading and not self.other.pending:
            events |= select.POLLIN
        return events

    def receive(self) -> None:
        """Read a piece for the other side; at the end of it, pass the end on."""
        data = self.socket.recv(PIECE)
        self.other.pending = data
        if not data:
            self.reading = False
        self.other.send()

    def send(self) -> None:
        """Send what is pending as far as it goes; then the end, if the other side has ended."""
        if self.pending:
            with contextlib.suppress(BlockingIOError):
                self.pending = self.pending[self.socket.send(self.pending) :]
        if not self.pending and not self.other.reading and self.writing:
            self.writing = False
            self.socket.shutdown(SHUT_WR)


class Bridge:
    """All connections of one run."""

    def __init__(self) -> None:
        self.listener = Socket()
        self.listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        self.listener.bind(ADDRESS)
        self.listener.listen(64)
        self.listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.ends: dict[int, End] = {}

    def register(self, poll: select.poll) -> None:
        """Add what is waited for."""
        if len(self.ends) < 2 * MAX_CONNECTIONS:
            poll.register(self.listener, select.POLLIN)
        for fd, end in self.ends.items():
            if events := end.interest():
                poll.register(fd, events)

    def handle(self, fd: int, events: int) -> bool:
        """Serve an event; False when the descriptor is not one of the bridge's."""
        if fd == self.listener.fileno():
            self._accept()
            return True
        end = self.ends.get(fd)
        if end is None:
            return False
        try:
            if events & select.POLLOUT:
                end.send()
            if end.reading and not end.other.pending:
                end.receive()
        except BlockingIOError:
            return True
        except OSError:
            self._drop(end)
            return True
        if not end.writing and not end.other.writing:
            self._drop(end)
        return True

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, *GONE):
            inside = accept(self.listener)
            outside = Socket(AF_UNIX)
            outside.setblocking(False)  # noqa: FBT003 - the standard library's signature
            try:
                outside.connect(SOCKET)
            except OSError:
                # Nobody is listening, or too many wait already: refused, as by a dead host.
                inside.close()
                outside.close()
                return
            near, far = End(inside), End(outside)
            near.other, far.other = far, near
            self.ends[inside.fileno()] = near
            self.ends[outside.fileno()] = far

    def _drop(self, end: End) -> None:
        for each in (end, end.other):
            self.ends.pop(each.socket.fileno(), None)
            each.socket.close()

    def close(self) -> None:
        """Cut every connection."""
        for end in list(self.ends.values()):
            end.socket.close()
        self.ends.clear()
        self.listener.close()


def trust(certificate: str) -> None:
    """Write the system's trusted certificates and this one where the environment points to."""
    os.mkdir(os.path.dirname(TRUST), 0o755)
    with open(SYSTEM_TRUST) as system, open(TRUST, "x") as bundle:
        bundle.write(system.read() + "\n" + certificate)
