"""Lets a request in to a server inside a sandbox, and tells the client what went wrong with it."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http import HTTPStatus
from uuid import UUID

import structlog
from fastapi import Request
from starlette.types import Receive, Scope, Send

from runner.api import context
from runner.api.context import request_id
from runner.api.deps import Dependencies, require
from runner.api.edge.tunnel import TunnelClosed
from runner.api.problems import Answered, of, problem
from runner.api.traffic.callers import GATE
from runner.api.traffic.carried import FROM_INSIDE, Carried, ClientLeft
from runner.api.traffic.cookies import PortCookie
from runner.api.traffic.destination import DESTINATION, PortTarget
from runner.api.traffic.exchange import Unpassable
from runner.auth.caller import Caller
from runner.auth.holding import OVER
from runner.auth.identity import ANSWER
from runner.auth.permissions import Permission
from runner.auth.rights import HELD, Held
from runner.base.tasks import attended
from runner.door.streams import PortStream
from runner.sandboxes.use import Using
from runner.store.ports import FoundPort
from runner.words.errors import (
    FileRefused,
    NodeAway,
    NotAuthenticated,
    PortFault,
    RightEnded,
    RunnerError,
)

MOST_AT_ONCE = 128
"""How many requests to the ports of one sandbox may be under way: half of what its node answers."""
MOST_WITHOUT_KEY = 96
"""How many of them may come without a key, so that visitors leave places for the owner."""
_log = structlog.get_logger("runner.api")


class PortPlaces:
    """The requests under way to the ports of each sandbox; some places are for keys alone."""

    def __init__(self) -> None:
        self._taken: Counter[UUID] = Counter()
        self._without_key: Counter[UUID] = Counter()

    @contextmanager
    def held(self, sandbox_id: UUID, *, keyed: bool) -> Iterator[None]:
        """Take a place inside the context. Raises NodeAway if too many are taken."""
        counts = [(self._taken, MOST_AT_ONCE)]
        if not keyed:
            counts.append((self._without_key, MOST_WITHOUT_KEY))
        for taken, most in counts:
            if taken[sandbox_id] >= most:
                raise NodeAway(f"{most} requests to ports of this sandbox are under way: try again")
        for taken, _ in counts:
            taken[sandbox_id] += 1
        try:
            yield
        finally:
            for taken, _ in counts:
                taken[sandbox_id] -= 1
                if not taken[sandbox_id]:
                    del taken[sandbox_id]


class PortProxy:
    """Serves requests to ports of sandboxes, once it is settled who calls."""

    def __init__(self, parts: Dependencies, cookie: PortCookie, issuer: str | None) -> None:
        self._parts = parts
        self._cookie = cookie
        self._issuer = issuer
        self._places = PortPlaces()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. An answer that breaks off is cut off: nobody takes it for whole."""
        request = Request(scope)
        destination: PortTarget = scope[DESTINATION]
        try:
            held = scope.get(HELD)
            if not isinstance(held, Held):
                raise NotAuthenticated(ANSWER)
            caller = context.caller(request, held.principal)
            await require(request, self._parts, caller, Permission.SANDBOX_USE)
            with self._places.held(destination.sandbox_id, keyed=GATE not in scope):
                async with dialled(
                    self._parts.using, caller, destination.sandbox_id, destination.port
                ) as stream:
                    carried = Carried(scope, receive, send, stream, self._cookie)
                    await attended(carried.carry(self._issuer), self._closed(scope, destination))
        except (ClientLeft, TunnelClosed):
            return
        except Answered as refused:
            answer, detail = refused.answer, "the caller's rate is used up"
        except Unpassable as error:
            detail = str(error)
            answer = problem(request, HTTPStatus.BAD_REQUEST, detail)
        except RunnerError as error:
            answer, detail = of(request, error), error.detail
        else:
            return
        if FROM_INSIDE not in scope:
            await answer(scope, receive, send)
        else:
            # The server sees an answer without an end, and cuts the connection.
            _log.info("port_cut_off", detail=detail, request=request_id(request))

    async def _closed(self, scope: Scope, destination: PortTarget) -> None:
        """Wait until a port that was reached without a key is closed. Raises RightEnded then."""
        found = scope.get(GATE)
        if isinstance(found, FoundPort):
            await self._parts.gates.stays(destination.sandbox_id, destination.port, found)
            raise RightEnded(OVER)


@asynccontextmanager
async def dialled(
    using: Using, caller: Caller, sandbox_id: UUID, port: int
) -> AsyncIterator[PortStream]:
    """Connect to a port. Raises PortFault if nothing listens there, and what `Using.dial` does."""
    async with AsyncExitStack() as stack:
        try:
            stream = await stack.enter_async_context(using.dial(caller, sandbox_id, port))
        except FileRefused as error:
            raise PortFault(
                f"nothing listens on port {port} of this sandbox ({error.errno_name}): start the "
                "server on 127.0.0.1 or 0.0.0.0 there, and try again"
            ) from error
        yield stream
