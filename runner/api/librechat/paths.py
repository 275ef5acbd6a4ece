"""LibreChat's requests, known by their path alone; their credential; the shape of errors.

LibreChat up to 0.8 sends `X-API-Key`. Later versions have no setting for a key, but send what is in
the address that they are given, as the password of Basic authentication (RFC 7617).
"""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers

from runner.auth.identity import of_basic

PREFIX = "/librechat/"
EXEC = f"{PREFIX}exec"
PROGRAMMATIC = f"{EXEC}/programmatic"
API_KEY = "x-api-key"


def is_theirs(path: str) -> bool:
    """Return whether a path is LibreChat's."""
    return path.startswith(PREFIX)


def counted_header(headers: Headers) -> str:
    """Return the only header that says who sends a request of LibreChat's."""
    return API_KEY if API_KEY in headers else "authorization"


def bearer(headers: Headers) -> str | None:
    """Return that header as one that has a key."""
    given = headers.get(name := counted_header(headers))
    return f"Bearer {given}" if name == API_KEY else of_basic(given)


def refusal(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None) -> JSONResponse:
    """Return an error in the shape that LibreChat's description gives."""
    body = {"error": status.phrase, "details": detail}
    return JSONResponse(body, status.value, headers=dict(headers or {}))
