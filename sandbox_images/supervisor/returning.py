"""The way back to a node: knocks until a node answers, or gives up after too long."""

from __future__ import annotations

import json
import sys

from loop import IN
from sockets import AF_UNIX, Socket
from streams import Link
from wire import GENERATIONS, GREETING, SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from collections.abc import Callable

    from loop import Loop

EVERY_S = 0.1
LONGEST = 4096


class Return:
    """Connects again, proves who this is, and waits to be told to go on."""

    def __init__(
        self, loop: Loop, secret: str, alone_s: float, met: Callable[[Link], None]
    ) -> None:
        self._loop = loop
        self._greeting = json.dumps(
            {"say": "returning", "generations": GENERATIONS, "secret": secret}
        ).encode()
        self._met = met
        self._socket: Socket | None = None
        self._answer = bytearray()
        loop.after(alone_s, self._give_up)
        self._knock()

    def _knock(self) -> None:
        self._socket = Socket(AF_UNIX)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._answer.clear()
        try:
            self._socket.connect(SOCKET)
            self._socket.sendall(GREETING.pack(b"C", len(self._greeting)) + self._greeting)
        except OSError:
            self._again()
        else:
            self._loop.watch(self._socket.fileno(), IN, self._heard)

    def _again(self) -> None:
        if self._socket is not None:
            self._loop.ignore(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self._loop.after(EVERY_S, self._knock)

    def _give_up(self) -> None:
        sys.exit(0)

    def _heard(self, _: int) -> None:
        if self._socket is None:
            return
        missing = GREETING.size - len(self._answer)
        if missing <= 0:
            missing += GREETING.unpack_from(self._answer)[1]
        try:
            data = self._socket.recv(missing)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._again()
            return
        self._answer += data
        if len(self._answer) < GREETING.size:
            return
        _, length = GREETING.unpack_from(self._answer)
        if length > LONGEST:
            sys.exit(1)
        if len(self._answer) == GREETING.size + length:
            self._agree(json.loads(self._answer[GREETING.size :]))

    def _agree(self, answer: dict[str, int]) -> None:
        if self._socket is None or answer["generation"] not in GENERATIONS:
            sys.exit(1)
        self._loop.ignore(self._socket.fileno())
        self._loop.forget(self._give_up)
        connection, self._socket = self._socket, None
        self._met(Link(connection))
