"""Errors as E2B's clients read them: a code and a message.

Their clients make their own exceptions of the status: 401, 404, 409, 429, 502 and 507 each have a
meaning, and 422 has none. For calls in the Connect protocol, the code is a word
(https://connectrpc.com/docs/protocol, "Error codes").
"""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from fastapi import Request
from fastapi.responses import JSONResponse

from runner.api.e2b.paths import NAMED, Part, is_call, part_of, path_of

SANDBOX = "runner.e2b.sandbox"
"""In the scope of a request inside a sandbox, once it is known: who acts in which sandbox."""
SANDBOX_ID = "e2b-sandbox-id"
NO_SANDBOX_THERE = "The sandbox was not found"
"""Their clients compare this text, to tell a sandbox that has ended from any other failure."""
_CODES: Mapping[int, str] = MappingProxyType(
    {
        400: "invalid_argument",
        401: "unauthenticated",
        403: "permission_denied",
        404: "not_found",
        409: "failed_precondition",
        412: "failed_precondition",
        413: "resource_exhausted",
        415: "invalid_argument",
        429: "resource_exhausted",
        501: "unimplemented",
        502: "unavailable",
        503: "unavailable",
        507: "resource_exhausted",
    }
)
_STATUSES: Mapping[HTTPStatus, HTTPStatus] = MappingProxyType(
    {HTTPStatus.UNPROCESSABLE_ENTITY: HTTPStatus.BAD_REQUEST}
)


def is_theirs(request: Request) -> bool:
    """Return whether an error of this request has E2B's shape."""
    return part_of(path_of(request.scope)) is not None


def refusal(
    request: Request,
    status: HTTPStatus,
    detail: str,
    *,
    no_sandbox: bool = False,
    quota: bool = False,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return an error in E2B's shape.

    `no_sandbox` says that the sandbox of the request does not exist or has ended; `quota`, that a
    quota is used up, which their clients expect as 429, whatever frees some of it.
    """
    path = path_of(request.scope)
    extra = dict(headers or {})
    status = _STATUSES.get(status, status)
    if no_sandbox and part_of(path) is Part.INSIDE:
        return gone(request)
    if no_sandbox:
        status = HTTPStatus.NOT_FOUND
    if quota:
        status = HTTPStatus.TOO_MANY_REQUESTS
        if "Retry-After" not in extra:
            extra["Should-Retry"] = "false"
    code = _CODES.get(status, "internal") if is_call(path) else status.value
    return JSONResponse({"code": code, "message": detail}, status.value, headers=extra)


def gone(request: Request) -> JSONResponse:
    """Return what E2B answers for a sandbox that does not exist, has ended, or is paused."""
    body = {"sandboxId": named(request), "message": NO_SANDBOX_THERE, "code": 502}
    return JSONResponse(body, HTTPStatus.BAD_GATEWAY)


def named(request: Request) -> str:
    """Return the sandbox that a request names by its host or header; else its token's."""
    if NAMED in request.scope:
        return str(request.scope[NAMED][0])
    acting = request.scope.get(SANDBOX)
    return request.headers.get("e2b-sandbox-id") or str(acting.sandbox_id if acting else "")
