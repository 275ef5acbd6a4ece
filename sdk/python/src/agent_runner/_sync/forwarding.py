"""A local port that stands for one inside a sandbox."""

import socket
from contextlib import suppress
from threading import Thread
from types import TracebackType
from typing import Self

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from agent_runner._sync.sockets import connected
from agent_runner.errors import ApiError
from agent_runner.transport import LOOPBACK

PIECE = 32 * 1024
FINISH = "finish"
MOST_WAITING = 128


class Forward:
    """Listens on this host's loopback, and carries each connection through the API.

    As a context manager, it ends all connections at the end of the context.
    """

    def __init__(self, http: httpx.Client, path: str, local: int = 0) -> None:
        self._http = http
        self._path = path
        self._listener = socket.create_server((LOOPBACK, local), backlog=MOST_WAITING)
        self._open: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]
        """The port on which it listens."""
        self.failure: ApiError | None = None
        """The reason why the last failed connection failed; None if none has."""

    def __enter__(self) -> Self:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Listen no more, and end all connections."""
        for each in (self._listener, *self._open):
            # Whoever waits for it in another thread wakes up.
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.add(connection)
                Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connected(self._http, self._path) as inside:
                sending = Thread(target=_inward, args=(connection, inside), daemon=True)
                sending.start()
                _outward(connection, inside)
                sending.join()
        except ApiError as error:
            self.failure = error
        except (OSError, ConnectionClosed):
            # One of the two ends has gone, and so has the connection.
            return
        finally:
            self._open.discard(connection)


def _outward(connection: socket.socket, inside: ClientConnection) -> None:
    """Pass on what the server inside sends, until it sends no more."""
    try:
        for message in inside:
            if message == FINISH:
                connection.shutdown(socket.SHUT_WR)
            elif isinstance(message, bytes):
                connection.sendall(message)
    finally:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _inward(connection: socket.socket, inside: ClientConnection) -> None:
    """Pass on what the local client sends, until it sends no more."""
    try:
        while data := connection.recv(PIECE):
            inside.send(data)
        inside.send(FINISH)
    except (OSError, ConnectionClosed):
        # `_outward` sees the same.
        inside.close()
