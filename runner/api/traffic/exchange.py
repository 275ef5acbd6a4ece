"""One exchange in HTTP/1.1 with a server inside a sandbox, over a connection of its own.

The server is hostile code. h11 reads what it says, with a bound on what it reads without
understanding. Whatever is no answer raises PortFault, which the client is told as 502.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http import HTTPStatus

import h11

from runner.api.traffic.cookies import Header
from runner.door.streams import PortStream
from runner.words.errors import PortFault

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 128
MAX_INFORMATIONAL = 16
"""Answers of 1xx before the one that counts."""
LAST_STATUS = 599
MAX_PIECE_BYTES = 256 * 1024
"""How much of a body is passed on at once, give or take one chunk."""
TURN = 64
"""How many events are read before other tasks have a turn: a chunk may be a single byte."""


class Unpassable(Exception):
    """The client sends something that cannot be passed on as a request."""


class Exchange:
    """A request that is sent, and its answer."""

    def __init__(self, stream: PortStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._events = 0

    async def ask(self, method: str, target: bytes, headers: list[Header]) -> None:
        """Send a request's head. Raises Unpassable."""
        with _passable():
            head = self._http.send(h11.Request(method=method, target=target, headers=headers))
        await self._stream.send(head or b"")

    async def send(self, body: bytes) -> None:
        """Send a part of the request's body; waits while the server does not read.

        Raises Unpassable if the body is longer than its head said.
        """
        if self._http.our_state is h11.SEND_BODY and body:
            with _passable():
                data = self._http.send(h11.Data(data=body))
            await self._stream.send(data or b"")

    async def finish(self) -> None:
        """End the request. Raises Unpassable if the body is shorter than its head said."""
        if self._http.our_state is not h11.SEND_BODY:
            return
        with _passable():
            end = self._http.send(h11.EndOfMessage())
        if end:
            await self._stream.send(end)

    async def answer(self) -> h11.Response | h11.InformationalResponse:
        """Return the answer's head: one that counts, or 101 if the request asked to switch."""
        for _ in range(MAX_INFORMATIONAL + 1):
            event = await self._next()
            if isinstance(event, h11.Response):
                if event.status_code > LAST_STATUS:
                    raise PortFault(f"the server answered with the status {event.status_code}")
                return _bounded(event)
            if not isinstance(event, h11.InformationalResponse):
                raise PortFault("the server closed the connection without an answer")
            if event.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                return _bounded(event)
        raise PortFault(f"the server sent more than {MAX_INFORMATIONAL} interim answers")

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the answer's body as it comes, with the chunks that came together in one piece.

        Raises PortFault if it breaks off.
        """
        piece = bytearray()
        while True:
            event = await self._read()
            if isinstance(event, h11.Data):
                piece += event.data
                if len(piece) < MAX_PIECE_BYTES:
                    continue
            if piece:
                yield bytes(piece)
                piece.clear()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._stream.receive())
            elif not isinstance(event, h11.Data):
                return

    @property
    def early(self) -> bytes:
        """The bytes that came right behind an answer of 101."""
        return self._http.trailing_data[0]

    async def _next(self) -> object:
        while (event := await self._read()) is h11.NEED_DATA:
            self._http.receive_data(await self._stream.receive())
        return event

    async def _read(self) -> object:
        """Return the next event in what has come, or `NEED_DATA`; now and then, let others run."""
        self._events += 1
        if self._events % TURN == 0:
            await asyncio.sleep(0)
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise PortFault(f"the server did not answer in HTTP/1.1: {error}") from error


@contextmanager
def _passable() -> Iterator[None]:
    try:
        yield
    except h11.LocalProtocolError as error:
        raise Unpassable(f"this request cannot be passed on: {error}") from error


def _bounded(
    event: h11.Response | h11.InformationalResponse,
) -> h11.Response | h11.InformationalResponse:
    size = sum(len(name) + len(value) for name, value in event.headers)
    if len(event.headers) > MAX_HEADERS or size > MAX_HEAD_BYTES:
        raise PortFault(
            f"the server's answer has more than {MAX_HEADERS} headers, or more than "
            f"{MAX_HEAD_BYTES // 1024} KiB of them"
        )
    return event
