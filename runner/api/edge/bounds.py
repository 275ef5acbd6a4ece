"""How much head a request may have: checked before a route, a key or a query is looked at."""

from http import HTTPStatus

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from runner.api.problems import problem

MAX_TARGET_BYTES = 8 * 1024
"""RFC 9110 4.1 asks for at least 8000."""
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_QUERY_PARAMETERS = 64


class HeadBounds:
    """Refuses a request line, header section or query above its bound."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and (refusal := _refusal(scope)) is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _refusal(scope: Scope) -> JSONResponse | None:
    headers, query = scope["headers"], scope["query_string"]
    if len(scope["raw_path"]) + len(query) > MAX_TARGET_BYTES:
        return _answer(
            scope, HTTPStatus.REQUEST_URI_TOO_LONG, f"the URL is above {MAX_TARGET_BYTES} bytes"
        )
    if len(headers) > MAX_HEADERS:
        return _answer(
            scope,
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"there are more than {MAX_HEADERS} headers",
        )
    if sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        return _answer(
            scope,
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the headers are above {MAX_HEADER_BYTES} bytes",
        )
    if query.count(b"&") >= MAX_QUERY_PARAMETERS:
        return _answer(
            scope,
            HTTPStatus.BAD_REQUEST,
            f"there are more than {MAX_QUERY_PARAMETERS} query parameters",
        )
    return None


def _answer(scope: Scope, status: HTTPStatus, detail: str) -> JSONResponse:
    return problem(Request(scope), status, detail, headers={"Connection": "close"})
