"""One connection: uvicorn's protocol on h11, with time limits for clients that do not proceed.

uvicorn closes an idle connection that was used before, and waits without end for everything else:
for the rest of a head, for the rest of a body that nobody wants any more, and for a client that
reads nothing. Here each of these has its time. How slowly a body may come while a route waits for
it is `bodies`' business.
"""

import asyncio
import http
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from uuid import uuid4

import h11
import structlog
from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from runner.api.e2b.paths import part_of, signature_of
from runner.api.edge.headers import RAW_HEADERS
from runner.api.edge.lingering import Lingering
from runner.api.edge.shares import Place, Strangers
from runner.api.edge.tunnel import SWITCH, Headers, Switch, Tunnel, TunnelClosed
from runner.api.edge.upgraded import Upgraded, is_handshake, placed
from runner.api.problems import problem

E2B_IDLE_S = 620
"""For how long a connection of E2B's clients may be idle: they keep theirs for 5 minutes, and some
load balancers in front of us for 10. It counts in its tenant's share all the time."""
LOOK_EVERY = 0.1
"""How often a connection is checked, as a fraction of a client's time."""

_log = structlog.get_logger("runner.api")


@dataclass(frozen=True, slots=True)
class Patience:
    """The time and the number of connections that clients may use."""

    client_s: float
    """Seconds for a head, for the rest of an unwanted body, and for reading an answer."""
    connections: int
    """How many connections strangers may have; principals share the same number."""


def _nobodys(host: bytes) -> bool:  # noqa: ARG001 - as any test of hosts
    return False


class Connection(H11Protocol):
    """uvicorn's connection with a time limit on everything that it waits for."""

    def __init__(
        self,
        *args: Any,
        patience: Patience,
        strangers: Strangers,
        is_elsewhere: Callable[[bytes], bool],
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._is_elsewhere = is_elsewhere
        self._patience = patience
        self._strangers = strangers
        self._place: Place | None = None
        self._line: Lingering
        self._watch: asyncio.TimerHandle | None = None
        self._owed_since: float | None = None
        """The time since which we wait for the end of a head, or of a body that nobody reads."""
        self._unread_since: float | None = None
        """The time at which the client fell behind with reading what is written."""
        self._closing_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection as a stranger's; if there are too many, cut off another one."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._line = Lingering(self.transport, lambda: self.conn.their_state is h11.SEND_BODY)
        self.transport = cast(asyncio.Transport, self._line)
        self._place = Place(self._strangers, self.transport.abort)
        self.app = placed(self.app, self._place)
        self._owed_since = self.loop.time()
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._watch is not None:
            self._watch.cancel()
        if self._place is not None:
            self._place.close()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End with the server, which waits for no client whose body was refused."""
        super().shutdown()
        if self._line.lingers:
            self._line.hang_up()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._line.lingers:
            return
        super().data_received(data)
        self._note_debt()

    def on_response_complete(self) -> None:
        """Continue after an answer with what the client has sent meanwhile."""
        if self._place is not None and self._place.held and _is_theirs(cast(Scope, self.scope)):
            self.timeout_keep_alive = E2B_IDLE_S
        super().on_response_complete()
        if self._place is not None:
            self._place.served()
        self._note_debt()

    def pause_writing(self) -> None:
        """Note that the client reads too slowly."""
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        """Note that the client has caught up."""
        super().resume_writing()
        self._unread_since = None

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over to what speaks WebSocket, with its place."""
        if self._watch is not None:
            self._watch.cancel()
        client_s = self._patience.client_s
        place = self._place or Place(self._strangers, self.transport.abort)
        made = partial(Upgraded, place=place, client_s=client_s)
        self.ws_protocol_class = cast(type[asyncio.Protocol], made)
        super().handle_websocket_upgrade(event)

    def _should_upgrade(self) -> bool:
        scope, host = self.scope, dict(self.headers).get(b"host", b"")
        if (
            self.ws_protocol_class is not None
            and is_handshake(
                scope["method"], scope["http_version"], scope["raw_path"], self.headers
            )
            and not self._is_elsewhere(host)
        ):
            return True
        if scope["http_version"] == "1.1" and self._get_upgrade() is not None:
            cast(dict[str, Any], scope)[SWITCH] = Switch(self._switched)
        return False

    def _switched(self, headers: Headers) -> Tunnel:
        """Answer with 101, and hand the connection over to a tunnel. Raises TunnelClosed."""
        if self.transport.is_closing() or self.cycle.disconnected:
            raise TunnelClosed
        if self._watch is not None:
            self._watch.cancel()
        self._unset_keepalive_if_required()
        head = self.conn.send(
            h11.InformationalResponse(
                status_code=http.HTTPStatus.SWITCHING_PROTOCOLS,
                headers=[*self.server_state.default_headers, *headers],
                reason=b"Switching Protocols",
            )
        )
        # Nothing is left for uvicorn to answer.
        self.cycle.response_started = self.cycle.response_complete = True
        self.connections.discard(self)
        tunnel = Tunnel(
            place=self._place or Place(self._strangers, self.transport.abort),
            client_s=self._patience.client_s,
            ended=cast(Any, self.connections).discard,
        )
        cast(Any, self.connections).add(tunnel)
        self.transport.write(head or b"")
        self.transport.set_protocol(tunnel)
        tunnel.connection_made(self.transport)
        if early := self.conn.trailing_data[0]:
            tunnel.data_received(early)
        self.transport.resume_reading()
        return tunnel

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(http.HTTPStatus.BAD_REQUEST, msg)

    def _note_debt(self) -> None:
        ours, theirs = self.conn.our_state, self.conn.their_state
        unwanted_body = ours is h11.DONE and theirs is h11.SEND_BODY
        begun_head = theirs is h11.IDLE and bool(self.conn.trailing_data[0])
        if not (unwanted_body or begun_head):
            self._owed_since = None
        elif self._owed_since is None:
            self._owed_since = self.loop.time()

    def _look_later(self) -> None:
        self._watch = self.loop.call_later(self._patience.client_s * LOOK_EVERY, self._look)

    def _look(self) -> None:
        now = self.loop.time()
        if self.transport.is_closing():
            # Closing would wait until the client has read the rest, however long that takes.
            self._closing_since = self._closing_since or now
        if self._over(self._closing_since, now) or self._over(self._unread_since, now):
            why = "request not ended" if self._line.lingers else "answer not read"
            _log.info("client_cut_off", why=why, client=self.client)
            self.transport.abort()
            return
        if self._over(self._owed_since, now):
            self._owed_since = None
            _log.info("client_cut_off", why="request not sent", client=self.client)
            if self.conn.trailing_data[0]:
                self._refuse(
                    http.HTTPStatus.REQUEST_TIMEOUT,
                    f"the request did not come within {self._patience.client_s:g} s",
                )
            else:
                self._line.hang_up()
        self._look_later()

    def _over(self, since: float | None, now: float) -> bool:
        return since is not None and now - since >= self._patience.client_s

    def _refuse(self, status: http.HTTPStatus, detail: str) -> None:
        """Answer if that is still possible, and close."""
        if self.cycle is not None and not self.cycle.response_complete:
            # Ignore whatever the route still sends.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            id_ = uuid4().hex
            answer = _marked(problem(_request(id_), status, detail), id_)
            self.transport.write(
                b"".join(
                    self.conn.send(event) or b""
                    for event in (
                        h11.Response(
                            status_code=status.value,
                            headers=[*self.server_state.default_headers, *answer.raw_headers],
                            reason=status.phrase.encode(),
                        ),
                        h11.Data(data=bytes(answer.body)),
                        h11.EndOfMessage(),
                    )
                )
            )
        self._line.hang_up()


def connections(
    patience: Patience, is_elsewhere: Callable[[bytes], bool] = _nobodys
) -> type[asyncio.Protocol]:
    """Return what uvicorn makes a connection with.

    `is_elsewhere` says of a Host header whether it names something else than this API, which then
    has no WebSockets of its own.
    """
    made = partial(
        Connection,
        patience=patience,
        strangers=Strangers(patience.connections),
        is_elsewhere=is_elsewhere,
    )
    return cast(type[asyncio.Protocol], made)


def _is_theirs(scope: Scope) -> bool:
    """Return whether a client of E2B's asks; whoever opens a signed address is none."""
    return part_of(scope["path"]) is not None and signature_of(scope) is None


def _request(id_: str) -> Request:
    return Request({"type": "http", "headers": [], "runner.request_id": id_})


def _marked(answer: JSONResponse, id_: str) -> JSONResponse:
    answer.raw_headers += [
        (b"x-request-id", id_.encode()),
        (b"connection", b"close"),
        *RAW_HEADERS,
    ]
    return answer
