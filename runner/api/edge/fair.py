"""Turns between tenants, so that one tenant's many requests do not stand before another's.

All requests share the API's event loop, and those about sandboxes also their node's. If all were
begun as they come, a command would wait behind each of a hundred that another tenant sent before.
So only a few requests about sandboxes are worked on at once, and fewer of each tenant. Further ones
wait, and the tenant that is served least goes next.

What waits for a program or a client uses no time of the loop, and needs no turn. So a turn begins
once a JSON body is there (`json` comes before), and ends when the answer begins, when a streamed
body is waited for, when the route says that it waits, or after `HOLD_S`: nobody can keep it longer.
An answer to a model's tool call begins before the tool does, so there it does not end the turn.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.e2b.paths import part_of
from runner.api.edge.groups import MCP
from runner.api.edge.routing import BODY, TEMPLATE, Body
from runner.api.middleware import PRINCIPAL
from runner.api.problems import of
from runner.words.errors import Overloaded
from runner.words.principal import Principal

AT_ONCE = 8
"""How many requests about sandboxes one process works on at once."""
OF_TENANT = 4
"""How many of them may be one tenant's: enough to keep the processors of a small host busy."""
HOLD_S = 0.25
"""How long a request may keep its turn."""
WITHIN_S = 30.0
RETRY_AFTER_S = 10
_TURN = "runner.turn"
"""Key in the ASGI scope: a function that gives the request's turn back."""


class FairTurns:
    """At most `at_once` turns, `of_tenant` for each tenant.

    A turn that ends goes to the tenant that holds the fewest, and among equals to the one that has
    waited longest since its last turn.
    """

    def __init__(self, *, at_once: int, of_tenant: int) -> None:
        self._free = at_once
        self._of_tenant = of_tenant
        self._held: Counter[UUID] = Counter()
        self._waiting: dict[UUID, deque[asyncio.Future[None]]] = {}
        """By tenant, in the order of their last turns. No deque is empty."""

    async def take(self, tenant: UUID) -> None:
        """Take a turn; wait for it if none may be had now. `give_back` ends it."""
        if self._may_take(tenant):
            self._give(tenant)
            return
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(given)
        try:
            await given
        except asyncio.CancelledError:
            if given.cancelled():
                self._leave(tenant, given)
            else:
                # It was given in the same pass of the loop.
                self.give_back(tenant)
            raise

    def give_back(self, tenant: UUID) -> None:
        """End a turn, and give it to whose turn it is."""
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        if tenant in self._waiting:
            self._go_last(tenant, self._waiting.pop(tenant))
        while (following := self._next()) is not None:
            waiting = self._waiting.pop(following)
            given = waiting.popleft()
            if waiting:
                self._go_last(following, waiting)
            if not given.done():
                given.set_result(None)
                self._give(following)

    def _go_last(self, tenant: UUID, waiting: "deque[asyncio.Future[None]]") -> None:
        """Put a tenant behind all others, as it has just been served."""
        self._waiting[tenant] = waiting

    def _may_take(self, tenant: UUID) -> bool:
        return self._free > 0 and self._held[tenant] < self._of_tenant

    def _give(self, tenant: UUID) -> None:
        self._free -= 1
        self._held[tenant] += 1

    def _next(self) -> UUID | None:
        """Return the tenant that is served next, if any may be served now."""
        first = min(self._waiting, key=self._held.__getitem__, default=None)
        return first if first is not None and self._may_take(first) else None

    def _leave(self, tenant: UUID, given: "asyncio.Future[None]") -> None:
        waiting = self._waiting.get(tenant, deque())
        with suppress(ValueError):
            waiting.remove(given)
        if not waiting:
            self._waiting.pop(tenant, None)


class TenantTurns:
    """Has a tenant's requests about sandboxes wait for their turns."""

    def __init__(self, app: ASGIApp, *, hold_s: float = HOLD_S, within_s: float = WITHIN_S) -> None:
        self._app = app
        self._turns = FairTurns(at_once=AT_ONCE, of_tenant=OF_TENANT)
        self._hold_s = hold_s
        self._within_s = within_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        principal = scope.get(PRINCIPAL)
        if not (isinstance(principal, Principal) and _takes_turns(scope[TEMPLATE])):
            await self._app(scope, receive, send)
            return
        try:
            give_back = await self._taken(principal.tenant_id)
        except TimeoutError:
            await of(Request(scope), self._overloaded())(scope, receive, send)
            return
        scope[_TURN] = give_back
        timer = asyncio.get_running_loop().call_later(self._hold_s, give_back)

        begins_late = scope[TEMPLATE] != MCP

        async def noted(message: Message) -> None:
            if begins_late and message["type"] == "http.response.start":
                give_back()
            await send(message)

        if scope[BODY] is Body.STREAMED:
            receive = _ending(receive, give_back)
        try:
            await self._app(scope, receive, noted)
        finally:
            timer.cancel()
            give_back()

    async def _taken(self, tenant: UUID) -> Callable[[], None]:
        """Take a turn; return a function that gives it back once. Raises TimeoutError."""
        async with asyncio.timeout(self._within_s):
            await self._turns.take(tenant)
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._turns.give_back(tenant)

        return give_back

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            "requests about sandboxes take turns, and this one got none within "
            f"{self._within_s:g} s; try again, with fewer at once",
            retry_after_s=RETRY_AFTER_S,
        )


def waits(request: Request) -> None:
    """End the request's turn, if it has one: from now on it waits for a program or a client."""
    give_back = request.scope.get(_TURN)
    if give_back is not None:
        give_back()


def _ending(receive: Receive, give_back: Callable[[], None]) -> Receive:
    """Return a `receive` that ends the turn when the body's next bytes are not there yet."""
    whole = False

    async def ending() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        # The loop comes to it only if `receive` waits.
        waiting = asyncio.get_running_loop().call_soon(give_back)
        try:
            message = await receive()
        finally:
            waiting.cancel()
        whole = not message.get("more_body", False)
        return message

    return ending


def _takes_turns(template: str) -> bool:
    return template.startswith(("/v1/sandboxes", MCP)) or part_of(template) is not None
