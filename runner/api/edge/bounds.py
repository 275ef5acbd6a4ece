"""Limits of a request's head, checked before a route, a key or a query.

A head is refused if it is too large, or if two readers could read it differently: a header with
only one value that is sent twice, a body whose length is declared in two ways, a path with bytes
that no route has. So everything after this check can read the head in only one way.
"""

import re
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from runner.api.problems import problem
from runner.words.text import is_utf8

MAX_TARGET_BYTES = 8 * 1024
"""RFC 9110 4.1 asks for at least 8000."""
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_QUERY_PARAMETERS = 64
MAX_METHOD_BYTES = 32
"""The longest registered method, `UPDATEREDIRECTREF`, has 17 (IANA)."""

READ_ONCE = frozenset(
    {
        b"accept-encoding",
        b"access-control-request-headers",
        b"access-control-request-method",
        b"authorization",
        b"connect-content-encoding",
        b"connect-protocol-version",
        b"connect-timeout-ms",
        b"content-digest",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"digest",
        b"e2b-sandbox-id",
        b"e2b-sandbox-port",
        b"e2b-traffic-access-token",
        b"host",
        b"idempotency-key",
        b"if-match",
        b"if-none-match",
        b"if-range",
        b"keepalive-ping-interval",
        b"last-event-id",
        b"origin",
        b"range",
        b"repr-digest",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"transfer-encoding",
        b"user-agent",
        b"x-access-token",
        b"x-api-key",
        b"x-csrf-token",
        b"x-request-id",
        b"x-runner-tenant",
        b"x-runner-unattended",
    }
)
"""Headers that this API reads as one value. Of two, some readers take the first, others the last.

RFC 9110 5.3 permits two only for lists, and we read the lists among these from one line, too.
"""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""A `$` in a route's pattern also matches before a line feed at the end."""
_REPLACEMENT = "\ufffd"
"""The character that a decoder puts in place of bytes that are not UTF-8; names may have it."""


class HeadBounds:
    """Refuses a head that is above a limit or has two meanings."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and (fault := head_fault(scope)) is not None:
            status, detail = fault
            refusal = problem(Request(scope), status, detail, headers={"Connection": "close"})
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


Fault = tuple[HTTPStatus, str]


def head_fault(scope: Scope) -> Fault | None:
    """Return what is wrong with a head: the status and text of the refusal, or None."""
    return _too_much(scope) or _twofold(scope)


def _too_much(scope: Scope) -> Fault | None:
    """Return which part of a head is above its limit, or None."""
    headers, query = scope["headers"], scope["query_string"]
    checks = (
        (
            # RFC 9112 3: 501 for a method longer than any that is implemented.
            len(scope["method"]) > MAX_METHOD_BYTES,
            HTTPStatus.NOT_IMPLEMENTED,
            f"the method is above {MAX_METHOD_BYTES} bytes",
        ),
        (
            len(scope["raw_path"]) + len(query) > MAX_TARGET_BYTES,
            HTTPStatus.REQUEST_URI_TOO_LONG,
            f"the URL is above {MAX_TARGET_BYTES} bytes",
        ),
        (
            len(headers) > MAX_HEADERS,
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"there are more than {MAX_HEADERS} headers",
        ),
        (
            sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES,
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the headers are above {MAX_HEADER_BYTES} bytes",
        ),
        (
            query.count(b"&") >= MAX_QUERY_PARAMETERS,
            HTTPStatus.BAD_REQUEST,
            f"there are more than {MAX_QUERY_PARAMETERS} query parameters",
        ),
    )
    return next(((status, detail) for wrong, status, detail in checks if wrong), None)


def _twofold(scope: Scope) -> Fault | None:
    """Return which part of a head has two readings, or None."""
    bad = HTTPStatus.BAD_REQUEST
    path = scope["path"]
    if _CONTROL.search(path) or (_REPLACEMENT in path and not _is_utf8(scope["raw_path"])):
        return bad, "the path has control characters, or bytes that are not UTF-8"
    seen: set[bytes] = set()
    for name, _ in scope["headers"]:
        if name in seen:
            return bad, f"the header {name.decode('latin-1')} may be sent once only"
        if name in READ_ONCE:
            seen.add(name)
    if {b"content-length", b"transfer-encoding"} <= seen:
        # RFC 9112 6.1: one overrides the other, and no honest client sends both.
        return bad, "the body's length is declared by Content-Length and by Transfer-Encoding"
    return None


def _is_utf8(quoted: bytes) -> bool:
    return is_utf8(unquote_to_bytes(quoted))
