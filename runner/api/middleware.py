"""Bounds and marks on every request, before anything of it is parsed. Pure ASGI."""

import re
import time
from http import HTTPStatus
from uuid import uuid4

import structlog
from fastapi import Request
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.context import origin
from runner.api.problems import of, problem, unexpected
from runner.auth.identity import authenticate, authenticate_operator
from runner.errors import NotFound, RunnerError
from runner.models import Operator, Principal
from runner.store.db import Database

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
PRINCIPAL = "runner.principal"
PROTECTED = "/v1/"
OPERATORS = "/operator/v1/"

_log = structlog.get_logger("runner.api")


class RequestId:
    """Gives each request an id, and puts it on its answer."""

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

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", id_)]
            await send(message)

        await self._app(scope, receive, marked)


class LastResort:
    """Answers what nothing foresaw, inside the marks and counts that every answer gets."""

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
            if started:
                # The server cuts the connection: a client sees that the answer is not whole.
                raise
            await unexpected(Request(scope), error)(scope, receive, send)


class Authentication:
    """Settles who calls before a byte of the body is read: strangers get nothing parsed."""

    def __init__(self, app: ASGIApp, database: Database, operators: Database | None) -> None:
        self._app = app
        self._database = database
        self._operators = operators

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a route finds its principal in the scope, or none."""
        if scope["type"] == "http" and scope["path"].startswith((PROTECTED, OPERATORS)):
            request = Request(scope)
            try:
                scope[PRINCIPAL] = await self._caller(request)
            except RunnerError as error:
                await of(request, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _caller(self, request: Request) -> Principal | Operator:
        header = request.headers.get("authorization")
        if request.url.path.startswith(PROTECTED):
            return await authenticate(self._database, header, origin(request))
        if self._operators is None:
            raise NotFound("this process has no operator's routes")
        return await authenticate_operator(self._operators, header, origin(request))


class BodyBounds:
    """Refuses a body that is not JSON by its type, or is above the limit.

    The limit holds for the declared length, and for what arrives as soon as it is exceeded.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(  # noqa: C901 - one pass over one request, with its two wrappers
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (refusal := self._refusal(scope)) is not None:
            await refusal(scope, receive, send)
            return
        received = 0
        exceeded = False
        answered = False

        async def counted() -> Message:
            nonlocal received, exceeded
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                exceeded = True
                # The app sees its client go; the answer it then makes is replaced below.
                return {"type": "http.disconnect"}
            return message

        async def replaced(message: Message) -> None:
            nonlocal answered
            if exceeded and not answered and message["type"] == "http.response.start":
                answered = True
                await self._too_large(scope)(scope, receive, send)
            elif not (exceeded and answered):
                await send(message)

        try:
            await self._app(scope, counted, replaced)
        except ClientDisconnect:
            if not exceeded:
                raise
        if exceeded and not answered:
            await self._too_large(scope)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        """Return the answer to a request whose headers alone say that it is none of ours."""
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            return self._too_large(scope)
        has_body = declared != b"0" or b"transfer-encoding" in headers
        media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if has_body and media_type != b"application/json":
            return problem(
                Request(scope), HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a body must be application/json"
            )
        return None

    def _too_large(self, scope: Scope) -> JSONResponse:
        return problem(
            Request(scope),
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body is above this deployment's limit of {self._max_bytes // 2**20} MiB",
            headers={"Connection": "close"},
        )


class Metrics:
    """Counts requests and their time by route template, never by path: labels stay few."""

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
                route = getattr(scope.get("route"), "path", "none")
                seconds = time.perf_counter() - started
                self._requests.labels(route, scope["method"], message["status"]).inc()
                self._seconds.labels(route).observe(seconds)
                _log.info(
                    "request",
                    method=scope["method"],
                    route=route,
                    status=message["status"],
                    ms=round(seconds * 1000, 1),
                    request=scope["runner.request_id"],
                )
            await send(message)

        await self._app(scope, receive, timed)
