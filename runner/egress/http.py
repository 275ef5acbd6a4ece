"""HTTP through the proxy: it checks each request, rewrites it, sends it on, and returns the answer.

It serves plain proxy requests, plain HTTP inside a tunnel, and HTTP inside TLS that the proxy ends.
h11 reads and writes every message. So a server gets exactly what was checked, in h11's spelling,
and never the client's own bytes.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import h11

from runner.egress import requests
from runner.egress.decide import Denied, Target
from runner.egress.policy import Rule
from runner.egress.refusal import told
from runner.egress.session import Asked, Meter, Method, ProxySession
from runner.egress.share import Share
from runner.egress.streams import Stream
from runner.egress.upstream import Outside, Unreachable
from runner.network.names import Address

MAX_HEAD = 64 * 1024
MAX_LINES = 256
"""About how many lines a head or a trailer may have: h11 reads all at once, some 7 µs each."""
MAX_INTERIM = 16
"""How many interim answers (1xx) may come before the answer; RFC 9110 §15.2 sets no limit."""


class Peer:
    """One end of an HTTP connection."""

    def __init__(
        self, stream: Stream, role: type[h11.CLIENT] | type[h11.SERVER], share: Share
    ) -> None:
        self.stream = stream
        self._share = share
        self._ahead = b""
        self._lines = 0
        self.state = h11.Connection(role, max_incomplete_event_size=MAX_HEAD)

    async def next_event(self) -> Any:
        """Return the next event. Raises h11.RemoteProtocolError if it is not HTTP."""
        while True:
            # One piece of received bytes may hold thousands of events.
            await self._share.turn()
            if (event := self.state.next_event()) is not h11.NEED_DATA:
                self._lines = 0
                return event
            if self._lines >= MAX_LINES:
                raise h11.RemoteProtocolError(f"more than {MAX_LINES} lines", error_status_hint=431)
            data = self._ahead or await self.stream.receive()
            *lines, self._ahead = data.split(b"\n", MAX_LINES)
            if len(lines) < MAX_LINES:
                self._ahead = b""
            self._lines += len(lines)
            self.state.receive_data(data[: len(data) - len(self._ahead)])

    @property
    def unread(self) -> bytes:
        """Received bytes after the last event."""
        return self.state.trailing_data[0] + self._ahead

    async def send(self, event: h11.Event) -> None:
        """Send an event."""
        if data := self.state.send(event):
            await self.stream.send(data)

    def reusable(self) -> bool:
        """Begin the next exchange; return False if the connection cannot carry another."""
        if self.state.our_state is self.state.their_state is h11.DONE:
            self.state.start_next_cycle()
            return True
        return False


@dataclass(slots=True)
class Server:
    """A connection to a server, kept for the next request to the same target."""

    peer: Peer
    target: Target
    address: Address

    @property
    def waits(self) -> bool:
        """Whether it is idle: the server has neither hung up nor sent more."""
        return self.peer.stream.waits and not self.peer.unread


class Refusing(Exception):
    """The client has been told why it was refused, and the connection is over."""


class HttpProxy:
    """Serves the requests of one client connection, one after the other."""

    def __init__(
        self,
        client: Peer,
        session: ProxySession,
        outside: Outside,
        meter: Meter,
        *,
        method: Method,
        inside: Target | None = None,
        encrypted: bool = False,
    ) -> None:
        """`inside` is the target of the tunnel through which the requests come."""
        self._client = client
        self._session = session
        self._outside = outside
        self._meter = meter
        self._method = method
        self._inside = inside
        self._encrypted = encrypted
        self._server: Server | None = None
        self._after = (0, 0)

    async def serve(self) -> h11.Request | None:
        """Serve until the connection ends; return a CONNECT request instead of serving it."""
        try:
            patience = self._outside.timeouts.head_s
            while True:
                async with asyncio.timeout(patience):
                    request = await self._request()
                if request is None or (request.method == b"CONNECT" and self._inside is None):
                    return request
                if not await self._exchange(request) or self._session.others_wait:
                    return None
                patience = self._outside.timeouts.idle_s
        except Refusing:
            return None
        finally:
            self._drop_server()

    async def _request(self) -> h11.Request | None:
        try:
            event = await self._client.next_event()
        except h11.RemoteProtocolError as error:
            asked = self._asked()
            await self.refuse(asked, Denied("bad_request", f"not a request: {error}"), status=400)
        return event if isinstance(event, h11.Request) else None

    def _asked(self) -> Asked:
        host, port = (self._inside.host, self._inside.port) if self._inside else ("", 0)
        return Asked(self._method, host, port, meter=self._meter, after=self._after)

    async def _exchange(self, request: h11.Request) -> bool:
        asked = self._asked()
        try:
            requests.check_framing(request)
            target, path = await self._target(request, asked)
            rule = requests.permitting(target, request.method.decode(), path)
            outgoing = requests.rewritten(
                request,
                target,
                path,
                rule,
                self._session.secrets,
                is_looked_into=bool(self._session.hidden),
            )
            server = await self._reach(target)
        except Denied as why:
            await self.refuse(asked, why)
        said = f"{request.method.decode()} {path[:200]}"
        try:
            status = await self._carry(server, outgoing, rule, asked)
        except asyncio.CancelledError:
            # The execution ended before the answer came: record the request all the same.
            self._session.allow(asked, server.address, rule, f"{said}: cut")
            raise
        self._session.allow(asked, server.address, rule, f"{said}: {status}")
        self._after = (self._meter.up, self._meter.down)
        if not server.peer.reusable():
            self._drop_server()
        return self._client.reusable()

    async def _target(self, request: h11.Request, asked: Asked) -> tuple[Target, str]:
        if self._inside is not None:
            path = requests.of_origin_form(request)
            requests.check_host(request, self._inside.host, self._inside.port, self._inside.scheme)
            return self._inside, path
        wanted = requests.of_absolute_form(request)
        asked.host, asked.port = wanted.host, wanted.port
        kept = self._server
        if kept and (kept.target.host, kept.target.port) == (wanted.host, wanted.port):
            target = kept.target
        else:
            target = await self._outside.decide(self._session, "http", wanted.host, wanted.port)
        asked.host = target.host
        requests.check_host(request, target.host, target.port, "http")
        return target, wanted.path

    async def _reach(self, target: Target) -> Server:
        kept = self._server
        if kept is not None and kept.target is target and kept.waits:
            return kept
        self._drop_server()
        stream, address = await self._outside.connect(
            self._session, self._meter, target, tls=self._encrypted
        )
        peer = Peer(stream, h11.CLIENT, self._session.share)
        self._server = Server(peer, target, address)
        return self._server

    def _drop_server(self) -> None:
        if self._server is not None:
            self._server.peer.stream.cut()
            self._server = None

    async def _carry(self, server: Server, outgoing: h11.Request, rule: Rule, asked: Asked) -> int:
        """Send the request and its body, return the answer to the client, and return its status."""
        started = asyncio.Event()
        start = self._session.share.start
        sending = start(self._send_request(server.peer, outgoing))
        answering = start(self._send_answer(server.peer, started))
        # A server may answer before it has the whole request, and then read no more of it.
        answering.add_done_callback(lambda _: sending.cancel())
        try:
            await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in (sending, answering):
                task.cancel()
            results = await asyncio.gather(sending, answering, return_exceptions=True)
        failures = [each for each in results if isinstance(each, Exception)]
        if not failures and isinstance(results[1], int):
            return results[1]
        problem = failures[0] if failures else ConnectionAbortedError("cut off")
        if isinstance(problem, Denied):
            why = problem
        else:
            # h11's message about a malformed answer quotes that answer.
            said = self._session.hidden.text(_name(problem))
            why = Unreachable("unreachable", f"{server.target.host} broke off: {said}", rule=rule)
        why.address = server.address
        if started.is_set():
            self._session.deny(asked, why)
            raise Refusing
        await self.refuse(asked, why)
        raise AssertionError("refusing raises")

    async def _send_request(self, server: Peer, outgoing: h11.Request) -> None:
        await server.send(outgoing)
        if self._client.state.they_are_waiting_for_100_continue:
            await self._client.send(h11.InformationalResponse(status_code=100, headers=[]))
        while True:
            event = await self._client.next_event()
            if isinstance(event, h11.Data):
                await server.send(h11.Data(bytes(event.data)))
            elif isinstance(event, h11.EndOfMessage):
                await server.send(h11.EndOfMessage())
                return
            else:
                raise ConnectionAbortedError("the client went away")

    async def _send_answer(self, server: Peer, started: asyncio.Event) -> int:
        hidden = self._session.hidden
        head = await self._head(server)
        if hidden and b"content-encoding" in dict(head.headers):
            raise Denied("encoded_answer", "the answer is encoded, though asked not to be")
        started.set()
        await self._client.send(
            h11.Response(
                status_code=head.status_code,
                headers=hidden.fields(requests.end_to_end(head.headers.raw_items())),
                reason=hidden.reason(bytes(head.reason)),
            )
        )
        body = hidden.body()
        while isinstance(event := await server.next_event(), h11.Data):
            pieces = []
            for piece in body.feed(bytes(event.data)):
                pieces.append(piece)
                await self._session.share.turn()
            await self._send_piece(b"".join(pieces))
        if not isinstance(event, h11.EndOfMessage):
            raise ConnectionAbortedError("no whole answer")
        await self._send_piece(body.rest())
        await self._client.send(h11.EndOfMessage())
        return head.status_code

    async def _head(self, server: Peer) -> h11.Response:
        for _ in range(MAX_INTERIM + 1):
            event = await server.next_event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise ConnectionAbortedError("no answer")
        raise ConnectionAbortedError(f"more than {MAX_INTERIM} interim answers")

    async def _send_piece(self, data: bytes) -> None:
        if data:
            await self._client.send(h11.Data(data))

    async def refuse(self, asked: Asked, why: Denied, status: int | None = None) -> None:
        """Tell the client why and record it; always raises Refusing."""
        self._session.deny(asked, why)
        if self._client.state.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            head, page = told(why, status)
            await self._client.send(head)
            await self._client.send(h11.Data(page))
            await self._client.send(h11.EndOfMessage())
        raise Refusing


def _name(problem: Exception) -> str:
    return str(problem) or type(problem).__name__
