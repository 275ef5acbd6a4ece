"""Limits how many connections a caller holds, so that the next caller finds one.

A connection belongs to whoever last proved an identity on it, until it closes. A trusted proxy's
connection belongs to nobody between requests, because the proxy keeps it for its next client. A
tenant may hold as many connections as are left for everybody else, and one of its keys half as
many. So a tenant alone gets half of all, two greedy tenants get a third each, and with n of them,
one part in n + 1 stays free. Event streams have a smaller budget under the same rule. This is the
dynamic threshold of shared buffers (Choudhury and Hahne, 1998): it needs no setting, and leaves
nothing idle that somebody wants.

Connections on which nobody has proved an identity belong to strangers. They have their own budget,
so tenants cannot take a health check's place. If it is full, the connection that was served longest
ago is cut off: an honest client sends its request within a round trip.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from runner.api.edge.address import PROXIED
from runner.api.edge.groups import MCP, TRAFFIC
from runner.api.edge.routing import TEMPLATE
from runner.api.middleware import PRINCIPAL
from runner.api.problems import RETRY_AFTER_S, problem
from runner.words.principal import Operator, Principal

PLACE = "runner.place"
"""Key in the ASGI scope: the place of the request's connection."""
STREAMS = frozenset(
    {
        "/v1/executions/{execution_id}/events",
        "/v1/sandboxes/{sandbox_id}/events",
        "/v1/sandboxes/{sandbox_id}/contexts/{context}/run",
        "/v1/sandboxes/{sandbox_id}/processes/{process}/output",
        "/v1/sandboxes/{sandbox_id}/processes/{process}/terminal",
        "/v1/sandboxes/{sandbox_id}/files/watch",
        "/v1/sandboxes/{sandbox_id}/tcp/{port}",
        MCP,
        "/process.Process/Start",
        "/process.Process/Connect",
        "/process.Process/StreamInput",
        "/filesystem.Filesystem/WatchDir",
        "/execute",
        TRAFFIC,
    }
)
"""Routes whose answers last as long as what they report on, or as the server inside likes."""

Holder = tuple[str, str]
"""A tenant, and one of its keys or users."""


class Share:
    """Divides a number of things: each tenant leaves free as many as it holds."""

    def __init__(self, whole: int) -> None:
        self.whole = whole
        self.free = whole
        self._held: Counter[str | Holder] = Counter()
        self._waiting: deque[tuple[Holder, int, asyncio.Future[None]]] = deque()

    def held(self, holder: Holder) -> int:
        """Return how much a key or user holds."""
        return self._held[holder]

    def take(self, holder: Holder, amount: int = 1) -> bool:
        """Hold more; return False, and change nothing, if that exceeds the holder's share."""
        tenant, _ = holder
        held, of_key = self._held[tenant], self._held[holder]
        if held >= self.free or 2 * of_key >= self.free or amount > self.free:
            return False
        self.free -= amount
        self._held.update({tenant: amount, holder: amount})
        return True

    async def take_within(self, holder: Holder, amount: int, seconds: float) -> bool:
        """Hold more, and wait in order for that; return False if it takes longer than `seconds`."""
        if self.take(holder, amount):
            return True
        given = asyncio.get_running_loop().create_future()
        self._waiting.append((holder, amount, given))
        try:
            async with asyncio.timeout(seconds):
                await given
        except BaseException as error:
            if given.done() and not given.cancelled():
                # It was given in the same pass of the loop, so give it back.
                self.give_back(holder, amount)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def give_back(self, holder: Holder, amount: int = 1) -> None:
        """Hold less, and give that to those who wait for it and may have it."""
        self.free += amount
        for each in (holder[0], holder):
            self._held[each] -= amount
            if not self._held[each]:
                del self._held[each]
        waiting, self._waiting = self._waiting, deque()
        for who, wanted, given in waiting:
            if given.done():
                continue
            if self.take(who, wanted):
                given.set_result(None)
            else:
                self._waiting.append((who, wanted, given))


class Hold:
    """One request's part of a share. It may grow, and is given back as a whole."""

    def __init__(self, share: Share, holder: Holder) -> None:
        self._share = share
        self._holder = holder
        self._amount = 0

    async def grow(self, amount: int, within_s: float) -> bool:
        """Hold this much in all; return False, and change nothing, if that exceeds the share.

        It waits only if it holds nothing yet: holders that wait for more could block each other.
        """
        more = amount - self._amount
        if more > 0:
            seconds = 0 if self._amount else within_s
            if not await self._share.take_within(self._holder, more, seconds):
                return False
            self._amount = amount
        return True

    def give_back(self) -> None:
        """Hold nothing."""
        self._share.give_back(self._holder, self._amount)
        self._amount = 0


class Strangers:
    """Open connections that belong to nobody, the one served longest ago first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._places: dict[Place, None] = {}

    def add(self, place: "Place") -> None:
        """Add a connection as the one served last; cut off the first one if there are too many."""
        self._places.pop(place, None)
        self._places[place] = None
        if len(self._places) > self._most:
            first = next(iter(self._places))
            del self._places[first]
            first.cut()

    def remove(self, place: "Place") -> None:
        """Remove a connection that closed or now belongs to somebody."""
        self._places.pop(place, None)


class Place:
    """One connection's place: a stranger's at first, then its holder's.

    A request may outlive its connection. The place is given back when both have ended, or for a
    trusted proxy's connection, when the request has ended.
    """

    def __init__(self, strangers: Strangers, cut: Callable[[], None]) -> None:
        self.cut = cut
        self._strangers = strangers
        self._holder: Holder | None = None
        self._share: Share | None = None
        self._closed = False
        self._requests = 0
        strangers.add(self)

    @property
    def held(self) -> bool:
        """Whether the connection counts in somebody's share."""
        return self._holder is not None

    def held_by(self, holder: Holder, share: Share) -> bool:
        """Give the connection to a holder; return False if that exceeds the holder's share."""
        if self._holder == holder:
            return True
        if not share.take(holder):
            return False
        self._give_back()
        self._holder, self._share = holder, share
        self._strangers.remove(self)
        return True

    def begin(self) -> None:
        """Note that a request of the holder is being served."""
        # An answer may be complete and the next request have begun before its route has returned.
        self._requests += 1

    def end(self, *, proxied: bool = False) -> None:
        """Note that the request has ended; a proxy's connection then belongs to nobody."""
        self._requests -= 1
        if not self._requests and (self._closed or proxied):
            self._give_back()
            self.served()

    def served(self) -> None:
        """Note that an answer is complete, so that a stranger is cut off later than others."""
        if self._holder is None and not self._closed:
            self._strangers.add(self)

    def close(self) -> None:
        """Note that the connection is gone."""
        self._closed = True
        self._strangers.remove(self)
        if not self._requests:
            self._give_back()

    def _give_back(self) -> None:
        if self._holder is not None and self._share is not None:
            self._share.give_back(self._holder)
            self._holder = self._share = None


@dataclass(frozen=True, slots=True)
class Shared:
    """The shares of a process's callers, whichever way their requests come."""

    connections: Share
    streams: Share

    @classmethod
    def of(cls, connections: int) -> Self:
        """Return it for this many connections, of which half may be streams."""
        return cls(Share(connections), Share(max(1, connections // 2)))


class Shares:
    """Refuses a principal's request if its connection or stream exceeds its share."""

    def __init__(self, app: ASGIApp, shared: Shared) -> None:
        self._app = app
        self._connections = shared.connections
        self._streams = shared.streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        holder = holder_of(scope)
        place = scope.get(PLACE)
        if holder is None or place is None:
            await self._app(scope, receive, send)
            return
        if not place.held_by(holder, self._connections):
            refusal = too_many(scope, self._connections, "connections")
            await refusal(scope, receive, send)
            return
        place.begin()
        try:
            await self._share_streams(holder, scope, receive, send)
        finally:
            place.end(proxied=scope.get(PROXIED, False))

    async def _share_streams(
        self, holder: Holder, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope[TEMPLATE] not in STREAMS:
            await self._app(scope, receive, send)
        elif not self._streams.take(holder):
            await too_many(scope, self._streams, "event streams")(scope, receive, send)
        else:
            try:
                await self._app(scope, receive, send)
            finally:
                self._streams.give_back(holder)


def holder_of(scope: Scope) -> Holder | None:
    """Return the tenant and the key or user whose identity the request has proved."""
    match scope.get(PRINCIPAL):
        case Principal() as principal:
            return str(principal.tenant_id), principal.actor
        case Operator() as operator:
            return "operators", operator.actor
    return None


def too_many(scope: Scope, share: Share, what: str) -> JSONResponse:
    """Return the refusal: 429 for the holder's own use, 503 if nothing is left for anybody."""
    wait = {"Retry-After": str(RETRY_AFTER_S), "Connection": "close"}
    holder = holder_of(scope)
    if share.free:
        held = share.held(holder) if holder else 0
        detail = (
            f"this key holds {held} of {share.whole} {what}, and it or its tenant has used up "
            "its share; close some, and try again"
        )
        return problem(Request(scope), HTTPStatus.TOO_MANY_REQUESTS, detail, headers=wait)
    detail = f"all {share.whole} {what} are taken; try again"
    return problem(Request(scope), HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=wait)
