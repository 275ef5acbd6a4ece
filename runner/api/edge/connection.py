"""One connection: uvicorn's protocol on h11, which also cuts off clients that hold it for nothing.

uvicorn closes an idle connection that was used before, and waits without end for everything else:
for the rest of a head, for the rest of a body that nobody wants any more, and for a client that
reads nothing. Here each of these has its time. How slowly a body may come while a route waits for
it is `bodies`' business.
"""

import asyncio
import http
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from uuid import uuid4

import h11
import structlog
from fastapi import Request
from fastapi.responses import JSONResponse
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.h11_impl import H11Protocol

from runner.api.edge.headers import RAW_HEADERS
from runner.api.edge.shares import PLACE, Place, Strangers
from runner.api.problems import problem

LOOK_EVERY = 0.1
"""A connection is looked at after this part of a client's time."""

_log = structlog.get_logger("runner.api")


@dataclass(frozen=True, slots=True)
class Patience:
    """What one client may take of the server."""

    client_s: float
    """Seconds for a head, for the rest of an unwanted body, and to read what is written."""
    connections: int
    """How many may be strangers'; principals share as many."""


class Connection(H11Protocol):
    """uvicorn's connection with a bound on everything that it waits for."""

    def __init__(
        self, *args: Any, patience: Patience, strangers: Strangers, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._patience = patience
        self._strangers = strangers
        self._place: Place | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._owed_since: float | None = None
        """Since when the client owes us the end of a head, or of a body that nobody reads."""
        self._unread_since: float | None = None
        """Since when more is written than the client takes."""
        self._closing_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, as a stranger's; where there are too many, another one goes."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._place = Place(self._strangers, self.transport.abort)
        self.app = _placed(self.app, self._place)
        self._owed_since = self.loop.time()
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._watch is not None:
            self._watch.cancel()
        if self._place is not None:
            self._place.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        super().data_received(data)
        self._note_debt()

    def on_response_complete(self) -> None:
        """Go on after an answer, with what the client has sent meanwhile."""
        super().on_response_complete()
        if self._place is not None:
            self._place.served()
        self._note_debt()

    def pause_writing(self) -> None:
        """Note that the client takes less than is written."""
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        """Note that the client has taken what was written."""
        super().resume_writing()
        self._unread_since = None

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
            # Closing waits for the client to read the rest, however long that may be.
            self._closing_since = self._closing_since or now
        if self._over(self._closing_since, now) or self._over(self._unread_since, now):
            _log.info("client_cut_off", why="answer not read", client=self.client)
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
                self.transport.close()
        self._look_later()

    def _over(self, since: float | None, now: float) -> bool:
        return since is not None and now - since >= self._patience.client_s

    def _refuse(self, status: http.HTTPStatus, detail: str) -> None:
        """Answer if there is still something to answer to, and close."""
        if self.cycle is not None and not self.cycle.response_complete:
            # Whatever the route still says is no longer heard.
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
        self.transport.close()


def connections(patience: Patience) -> type[asyncio.Protocol]:
    """Return what uvicorn makes a connection with."""
    made = partial(Connection, patience=patience, strangers=Strangers(patience.connections))
    return cast(type[asyncio.Protocol], made)


def _placed(app: ASGI3Application, place: Place) -> ASGI3Application:
    """Return the app, which finds in each request's scope the place of this connection."""

    async def placed(scope: Any, receive: Any, send: Any) -> None:
        scope[PLACE] = place
        await app(scope, receive, send)

    return placed


def _request(id_: str) -> Request:
    return Request({"type": "http", "headers": [], "runner.request_id": id_})


def _marked(answer: JSONResponse, id_: str) -> JSONResponse:
    answer.raw_headers += [
        (b"x-request-id", id_.encode()),
        (b"connection", b"close"),
        *RAW_HEADERS,
    ]
    return answer
