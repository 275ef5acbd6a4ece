"""Bounds and marks on every request, before anything of it is parsed. Pure ASGI."""

import re
import time
from http import HTTPStatus
from uuid import uuid4

import structlog
from fastapi import Request
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.problems import problem

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))

_log = structlog.get_logger("runner.api")


class RequestId:
    """Gives each request an id, and puts it and fixed headers on every answer."""

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
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", id_),
                    *(header for header in HEADERS if header[0] not in present),
                ]
            await send(message)

        await self._app(scope, receive, marked)


class BodyLimit:
    """Refuses a body above the limit: by its declared length, else as soon as it is exceeded."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            await self._refuse(scope, receive, send)
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
                await self._refuse(scope, receive, send)
            elif not (exceeded and answered):
                await send(message)

        try:
            await self._app(scope, counted, replaced)
        finally:
            if exceeded and not answered:
                await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem(
            Request(scope),
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body is above this deployment's limit of {self._max_bytes // 2**20} MiB",
            headers={"Connection": "close"},
        )
        await response(scope, receive, send)


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
