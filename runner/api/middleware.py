"""Limits and labels for every request, before any of it is parsed. Pure ASGI."""

import re
import time
from contextlib import nullcontext
from http import HTTPStatus
from uuid import uuid4

import structlog
from anyio import BrokenResourceError
from fastapi import Request
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.callers import Callers
from runner.api.edge.doubt import DOUBT, Turn
from runner.api.edge.routing import BODY, TEMPLATE, Body, declared_length, is_protected
from runner.api.problems import of, problem, unexpected
from runner.words.errors import RunnerError

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
PRINCIPAL = "runner.principal"
BEGAN = "runner.began"
"""When a request's head had come, in nanoseconds since the epoch."""

_log = structlog.get_logger("runner.api")


class RequestId:
    """Gives each request an id, and adds it to the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = dict(scope["headers"]).get(b"x-request-id", b"")
        id_ = offered if REQUEST_ID.fullmatch(offered) else uuid4().hex.encode()
        scope["runner.request_id"] = id_.decode()
        scope[BEGAN] = time.time_ns()

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", id_)]
            await send(message)

        await self._app(scope, receive, marked)


class LastResort:
    """Answers unexpected failures, inside the headers and counts that every answer gets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if started and _nobody_listens(error):
                return
            if started:
                # The server cuts the connection, so the client sees that the answer is incomplete.
                raise
            await unexpected(Request(scope), error)(scope, receive, send)


def _nobody_listens(error: Exception) -> bool:
    """Return whether an event stream failed only because its client has left.

    FastAPI closes the reading end of its own queue before it stops the task that writes into it
    (its discussion 15725), so every client that hangs up would cause a traceback in the log.
    """
    if isinstance(error, ExceptionGroup):
        return all(map(_nobody_listens, error.exceptions))
    return isinstance(error, BrokenResourceError)


class Authentication:
    """Finds out who calls before a byte of the body is read: nothing of a stranger is parsed."""

    def __init__(self, app: ASGIApp, callers: Callers) -> None:
        self._app = app
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the route finds the principal, if any, in the scope."""
        if scope["type"] == "http" and is_protected(scope):
            request = Request(scope)
            turn: Turn = scope.get(DOUBT) or nullcontext()
            try:
                async with turn:
                    caller = await self._callers.of(request)
                if caller is not None:
                    scope[PRINCIPAL] = caller
            except RunnerError as error:
                await of(request, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


MAX_STRANGERS_BYTES = 16 * 1024
"""Bytes of a login's body: strangers must not hold a connection with a long, slow one."""


class BodyBounds:
    """Refuses a body whose type is not JSON, or that is above the limit.

    The limit holds for the declared length, and for what arrives. Routes that stream have a limit
    of their own and take any type; those in `declared`, by method and template, require a declared
    length. A stranger's body has a lower limit.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        max_streamed_bytes: int,
        declared: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_streamed_bytes = max_streamed_bytes
        self._declared = declared

    async def __call__(  # noqa: C901 - one pass over one request, with its two wrappers
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        streamed = scope[BODY] is Body.STREAMED
        max_bytes = self._max_streamed_bytes if streamed else self._max_bytes
        if PRINCIPAL not in scope:
            max_bytes = min(max_bytes, MAX_STRANGERS_BYTES)
        if (refusal := self._refusal(scope, max_bytes)) is not None:
            await refusal(scope, receive, send)
            return
        received = 0
        exceeded = False
        answered = False

        async def counted() -> Message:
            nonlocal received, exceeded
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                exceeded = True
                # The app sees its client leave; the answer that it then makes is replaced below.
                return {"type": "http.disconnect"}
            return message

        async def replaced(message: Message) -> None:
            nonlocal answered
            if exceeded and not answered and message["type"] == "http.response.start":
                answered = True
                await _too_large(scope, max_bytes)(scope, receive, send)
            elif not (exceeded and answered):
                await send(message)

        try:
            await self._app(scope, counted, replaced)
        except ClientDisconnect:
            if not exceeded:
                raise
        if exceeded and not answered:
            await _too_large(scope, max_bytes)(scope, receive, send)

    def _refusal(self, scope: Scope, max_bytes: int) -> JSONResponse | None:
        """Return the refusal of a request whose head shows that its body is not acceptable."""
        declared = declared_length(scope)
        if (declared or 0) > max_bytes:
            return _too_large(scope, max_bytes)
        headers = dict(scope["headers"])
        wants_length = (scope["method"], scope[TEMPLATE]) in self._declared
        if wants_length and b"content-length" not in headers:
            return problem(
                Request(scope),
                HTTPStatus.LENGTH_REQUIRED,
                "send Content-Length: the space for the body is reserved before it is read",
                headers={"Connection": "close"},
            )
        media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if scope[BODY] is Body.JSON and media_type != b"application/json":
            return problem(
                Request(scope), HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a body must be application/json"
            )
        return None


def _too_large(scope: Scope, max_bytes: int) -> JSONResponse:
    return problem(
        Request(scope),
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body is above the limit of {_size(max_bytes)}",
        headers={"Connection": "close"},
    )


def _size(bytes_: int) -> str:
    return f"{bytes_ // 2**20} MiB" if bytes_ >= 2**20 else f"{bytes_ // 2**10} KiB"


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""Label of every other method, because a stranger may invent any number of them."""


class Metrics:
    """Counts requests and their time by labels from fixed sets, whatever strangers send."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter(
            "runner_http_requests_total",
            "HTTP requests.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "runner_http_request_seconds",
            "Time to the first byte of the answer.",
            ("route",),
            registry=registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get(TEMPLATE) or "none"
                method = scope["method"] if scope["method"] in METHODS else OTHER
                seconds = time.perf_counter() - started
                self._requests.labels(route, method, message["status"]).inc()
                self._seconds.labels(route).observe(seconds)
                _log.info(
                    "request",
                    method=method,
                    route=route,
                    status=message["status"],
                    ms=round(seconds * 1000, 1),
                    request=scope["runner.request_id"],
                )
            await send(message)

        await self._app(scope, receive, timed)
