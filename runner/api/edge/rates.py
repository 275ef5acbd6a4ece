"""How often requests may come: from strangers by address, from principals by their tenant's tier.

Requests without a credential and requests with a wrong one are counted separately, each by address:
a stranger who asks without a key uses nothing up for a neighbour who has one. If an address has
sent too many wrong credentials, further ones wait for a turn (`doubt`), unless this process has
verified them lately. A signed address that names no sandbox costs a search, right or wrong: so it
is counted before the search, and separately.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from time import monotonic
from types import MappingProxyType

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.e2b.paths import (
    ACCESS_TOKEN,
    TRAFFIC_TOKEN,
    Part,
    is_context,
    part_of,
    signature_of,
)
from runner.api.e2b.shape import named
from runner.api.edge.address import site
from runner.api.edge.doubt import DOUBT, Doubt
from runner.api.edge.groups import OPEN_WITHOUT_REDIS, SIGNED, TIMES, UNCOUNTED, Group, group_of
from runner.api.edge.ratelimit import Allowance, RateLimiter
from runner.api.edge.routing import BODY, TEMPLATE, Body, declared_length, is_protected
from runner.api.librechat import paths as librechat
from runner.api.middleware import PRINCIPAL
from runner.api.problems import of, problem
from runner.api.traffic.destination import DESTINATION
from runner.base.rates import Rate, RateLimits
from runner.words.errors import QueueUnavailable, TooManyAttempts
from runner.words.principal import Operator, Principal

PROVEN_S = 600.0
PROVEN_AT_MOST = 10_000

BYTES_FOR_ONE: Mapping[Body, int] = MappingProxyType(
    # JSON is parsed, checked and stored: a MiB of it is the work of a dozen plain requests.
    {Body.JSON: 256 * 1024, Body.STREAMED: 2**20}
)
"""A body costs one place of its rate, and another one for each further this many bytes."""
CHARGE = "runner.charge"
"""Key in the ASGI scope: a function that charges a body whose length was not declared."""
Charge = Callable[[int], Awaitable[JSONResponse | None]]


class Proven:
    """Hashes of credentials that were verified lately, in this process' memory; bounded."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __contains__(self, credential: bytes) -> bool:
        return self._until.get(credential, 0.0) > monotonic()

    def add(self, credential: bytes) -> None:
        """Remember a credential; if there are too many, forget the oldest."""
        self._until[credential] = monotonic() + PROVEN_S
        self._until.move_to_end(credential)
        if len(self._until) > PROVEN_AT_MOST:
            self._until.popitem(last=False)

    def discard(self, credential: bytes) -> None:
        """Forget a credential that no longer holds."""
        self._until.pop(credential, None)


class StrangerRates:
    """Counts requests without a credential, and with a wrong one, by address."""

    def __init__(self, app: ASGIApp, limiter: RateLimiter, rates: RateLimits) -> None:
        self._app = app
        self._limiter = limiter
        self._rates = rates
        self._proven = Proven()
        self._doubt = Doubt()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope[TEMPLATE] == UNCOUNTED:
            await self._app(scope, receive, send)
            return
        group = group_of(scope["method"], scope[TEMPLATE])
        # Somebody who logs in proves nothing by other parts of the request.
        credential = None if group is Group.LOGIN else _credential(scope)
        if credential is not None and credential in self._proven:
            await self._app(scope, receive, self._judging(scope, send, credential))
            return
        rate, key = self._bucket(scope, group, credential)
        try:
            if credential is None:
                verdict = await self._limiter.hit(rate, *key)
                send = _told(send, verdict)
            else:
                count = self._limiter.hit if _is_search(scope) else self._limiter.look
                verdict = await count(rate, *key)
                send = self._judging(scope, send, credential)
        except QueueUnavailable as error:
            if not OPEN_WITHOUT_REDIS[group]:
                await of(Request(scope), error)(scope, receive, send)
                return
        else:
            if not verdict.allowed and credential is None:
                refusal = _too_many(scope, verdict, "this address")
                await refusal(scope, receive, send)
                return
            if not verdict.allowed:
                scope[DOUBT] = self._doubt.turn(key[1], _too_many_wrong(verdict))
        await self._app(scope, receive, send)

    def _bucket(
        self, scope: Scope, group: Group, credential: bytes | None
    ) -> tuple[Rate, tuple[str, ...]]:
        rate, name = self._rates.anonymous, "anonymous"
        if credential is not None:
            name = "searches" if _is_search(scope) else "credentials"
        elif group is Group.OPERATIONS:
            rate, name = self._rates.operations, group.value
        elif group is Group.LOGIN:
            name = group.value
        return rate, ("address", site(scope["client"][0] if scope["client"] else "none"), name)

    def _judging(self, scope: Scope, send: Send, credential: bytes) -> Send:
        """Return a `send` that learns from the answer whether the credential was right."""

        async def judged(message: Message) -> None:
            if message["type"] == "http.response.start":
                if PRINCIPAL in scope:
                    self._proven.add(credential)
                elif message["status"] < HTTPStatus.INTERNAL_SERVER_ERROR:
                    self._proven.discard(credential)
                    if not _is_search(scope):
                        await self._failed(scope, credential)
            await send(message)

        return judged

    async def _failed(self, scope: Scope, credential: bytes) -> None:
        rate, key = self._bucket(scope, Group.READ, credential)
        try:
            await self._limiter.hit(rate, *key)
        except QueueUnavailable:
            # The answer is a refusal already, so nobody gets in uncounted.
            return


class PrincipalRates:
    """Counts a principal's requests by group, at the rate of its tenant's tier."""

    def __init__(self, app: ASGIApp, limiter: RateLimiter, rates: RateLimits) -> None:
        self._app = app
        self._limiter = limiter
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        match scope.get(PRINCIPAL):
            case Principal() | Operator() as principal:
                pass
            case _:
                await self._app(scope, receive, send)
                return
        group = _group_of(scope)
        rate, who = _bucket_of(self._rates, principal, group)
        declared = declared_length(scope)
        try:
            cost = cost_of(scope[BODY], declared or 0)
            verdict = await self._limiter.hit(rate, *who, group.value, cost=cost)
        except QueueUnavailable as error:
            if OPEN_WITHOUT_REDIS[group]:
                await self._app(scope, receive, send)
            else:
                await of(Request(scope), error)(scope, receive, send)
            return
        if not verdict.allowed:
            await _too_many(scope, verdict, _of_caller(group))(scope, receive, send)
            return
        if declared is None:
            scope[CHARGE] = self._charge(scope, group, rate, who)
        await self._app(scope, receive, _told(send, verdict))

    def _charge(self, scope: Scope, group: Group, rate: Rate, who: tuple[str, str]) -> Charge:
        """Return a function that charges for a body that was read, and may return a refusal."""

        async def charge(length: int) -> JSONResponse | None:
            if (cost := cost_of(scope[BODY], length) - 1) == 0:
                return None
            try:
                verdict = await self._limiter.hit(rate, *who, group.value, cost=cost)
            except QueueUnavailable as error:
                return None if OPEN_WITHOUT_REDIS[group] else of(Request(scope), error)
            return None if verdict.allowed else _too_many(scope, verdict, _of_caller(group))

        return charge


async def hit(
    limiter: RateLimiter, rates: RateLimits, principal: Principal, group: Group, cost: int = 1
) -> Allowance:
    """Count more requests of this group, for work that a request's head does not show.

    Raises QueueUnavailable.
    """
    rate, who = _bucket_of(rates, principal, group)
    return await limiter.hit(rate, *who, group.value, cost=cost)


def _bucket_of(
    rates: RateLimits, principal: Principal | Operator, group: Group
) -> tuple[Rate, tuple[str, str]]:
    """Return the rate of a principal's requests of a group, and for whom they are counted."""
    if isinstance(principal, Principal):
        rate, who = rates.of(principal.tier), f"tenant:{principal.tenant_id}"
    else:
        rate, who = rates.enterprise, "operator"
    return rate.times(TIMES.get(group, 1)), (who, principal.actor)


def cost_of(body: Body, length: int) -> int:
    """Return how many places of its rate a request with a body of this length takes."""
    return 1 if body is Body.NONE else 1 + max(0, length - 1) // BYTES_FOR_ONE[body]


def rate_headers(verdict: Allowance) -> dict[str, str]:
    """Return both kinds of headers.

    `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10) name every window;
    the three older ones, which more clients read, show the tightest.
    """
    tightest = verdict.tightest
    return {
        "RateLimit-Policy": ", ".join(
            f'"{each.name}";q={each.quota};w={each.seconds}' for each in verdict.windows
        ),
        "RateLimit": ", ".join(
            f'"{each.name}";r={each.remaining};t={each.reset_s}' for each in verdict.windows
        ),
        "RateLimit-Limit": str(tightest.quota),
        "RateLimit-Remaining": str(tightest.remaining),
        "RateLimit-Reset": str(tightest.reset_s),
    }


def _told(send: Send, verdict: Allowance) -> Send:
    raw = [(name.lower().encode(), value.encode()) for name, value in rate_headers(verdict).items()]

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            # A refusal that counted later knows better.
            present = {name for name, _ in message["headers"]}
            told_now = [header for header in raw if header[0] not in present]
            message["headers"] = [*message["headers"], *told_now]
        await send(message)

    return told


def _too_many_wrong(verdict: Allowance) -> TooManyAttempts:
    full = verdict.tightest
    wait_s = max(1, full.reset_s)
    return TooManyAttempts(
        f"this address: more than {full.quota} wrong credentials in {full.seconds} s; "
        f"try again in {wait_s} s",
        wait_s,
    )


def _of_caller(group: Group) -> str:
    return f"this key or user for {group.value} requests"


def _too_many(scope: Scope, verdict: Allowance, whose: str) -> JSONResponse:
    full = verdict.tightest
    wait_s = max(1, full.reset_s)
    return problem(
        Request(scope),
        HTTPStatus.TOO_MANY_REQUESTS,
        f"the rate of {whose} is used up: {full.quota} places in {full.seconds} s, "
        f"of which a large body takes several; try again in {wait_s} s",
        headers={**rate_headers(verdict), "Retry-After": str(wait_s)},
    )


def _credential(scope: Scope) -> bytes | None:
    """Return a hash of the request's credential, or None if it has none."""
    if not is_protected(scope):
        return None
    if scope[TEMPLATE] == SIGNED:
        # A signed address is its own credential, and the only one that counts.
        return hashlib.sha256(scope["raw_path"] + b"?" + scope["query_string"]).digest()
    if signature_of(scope) is not None:
        given = [b"signed\0" + scope["query_string"]]
    else:
        name = _counted_header(scope).encode()
        given = [name + b"\0" + value for each, value in scope["headers"] if each == name]
    return hashlib.sha256(b"\0\0".join(given)).digest() if given else None


def _counted_header(scope: Scope) -> str:
    """Return the only header that says who sends this request."""
    headers = Headers(scope=scope)
    if librechat.is_theirs(scope["path"]):
        return librechat.counted_header(headers)
    match part_of(scope["path"]):
        case Part.CONTROL:
            return "x-api-key"
        case Part.INSIDE:
            by_traffic = is_context(scope["path"]) and ACCESS_TOKEN not in headers
            return TRAFFIC_TOKEN if by_traffic else ACCESS_TOKEN
        case None if DESTINATION in scope and TRAFFIC_TOKEN in headers:
            return TRAFFIC_TOKEN
        case None:
            return "authorization" if "authorization" in headers else "cookie"


def _group_of(scope: Scope) -> Group:
    """Return the group of a principal's request: who uses an address uses none of its signer's."""
    if signature_of(scope) is not None:
        return Group.SIGNED
    return group_of(scope["method"], scope[TEMPLATE])


def _is_search(scope: Scope) -> bool:
    """Return whether a sandbox must be searched for among all, by a signature alone."""
    return signature_of(scope) is not None and not named(Request(scope))
