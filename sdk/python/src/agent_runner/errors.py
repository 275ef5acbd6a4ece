"""Errors of a call. The tree is drawn in `agent_runner`."""

from errno import EFBIG
from http import HTTPStatus
from typing import Any

import httpx

_MOST_TOLD = 100
"""Characters of what a stranger says of itself."""


class ApiError(Exception):
    """The API refused. `detail` is for people, `type` for programs.

    `retry_after_s` says in how many seconds to ask again, if the answer said so.
    """

    def __init__(self, problem: dict[str, Any], *, retry_after_s: float | None = None) -> None:
        self.status: int = problem.get("status", 0)
        self.type: str = problem.get("type", "about:blank")
        self.detail: str = problem.get("detail", "")
        self.instance: str | None = problem.get("instance")
        self.errors: list[dict[str, str]] = problem.get("errors", [])
        self.quota: dict[str, Any] | None = problem.get("quota")
        self.reason: str | None = problem.get("reason")
        self.kept_as: str | None = problem.get("kept_as")
        self.retry_after_s = retry_after_s
        # A detail that gives each field's reason is not followed by the same again.
        wrong = [f"{each['field']}: {each['message']}" for each in self.errors]
        fields = "".join(f"\n  {each}" for each in wrong if each not in self.detail)
        super().__init__(f"{self.detail}{fields}")


class NotAuthenticated(ApiError):
    """The key is missing or not accepted."""


class NotPermitted(ApiError):
    """The key's role lacks the permission."""


class NotFound(ApiError):
    """There is no such thing for this key."""


class Conflict(ApiError):
    """The request contradicts what is stored."""


class Gone(ApiError):
    """The sandbox lives no more; `reason` says why, and `kept_as` which snapshot has its files."""


class Invalid(ApiError):
    """The request is not valid; `errors` names the fields."""


class TooMany(ApiError):
    """As much as may be now; `quota`, if it is one, says of what and when some of it is free."""


class UnsafeArchive(Exception):
    """A sandbox sent a folder of which something was not written here, because it is not safe."""


class FileTooLarge(OSError):
    """A file in a sandbox has more bytes than its reader wanted to hold at once."""

    def __init__(self, path: str, most_bytes: int) -> None:
        super().__init__(
            EFBIG,
            f"it has more than {most_bytes:,} bytes: raise `most_bytes`, or read it in pieces with "
            "`open`",
            path,
        )


class Unavailable(ApiError):
    """The service does not answer, or not now, or something else answers in its place.

    Safe to try again; a submission with the same idempotency key, as it may have arrived.
    """


BY_STATUS: dict[int, type[ApiError]] = {
    HTTPStatus.BAD_REQUEST: Invalid,
    HTTPStatus.UNAUTHORIZED: NotAuthenticated,
    HTTPStatus.FORBIDDEN: NotPermitted,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GONE: Gone,
    HTTPStatus.LENGTH_REQUIRED: Invalid,
    HTTPStatus.PRECONDITION_FAILED: Conflict,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Invalid,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: Invalid,
    HTTPStatus.UNPROCESSABLE_ENTITY: Invalid,
    HTTPStatus.TOO_MANY_REQUESTS: TooMany,
    HTTPStatus.BAD_GATEWAY: Unavailable,
    HTTPStatus.SERVICE_UNAVAILABLE: Unavailable,
    HTTPStatus.GATEWAY_TIMEOUT: Unavailable,
}


CLOSE_BY_STATUS = 4000
"""The API closes WebSockets with a code that is so much above the status of what went wrong."""


def from_response(response: httpx.Response, *, retry_after_s: float | None = None) -> ApiError:
    """Return the error that a read response stands for, which is no success."""
    problem = {
        "detail": f"{_answered(response)}, and not as this API does: is the address right?",
        **_problem(response),
        "status": response.status_code,
    }
    kind = BY_STATUS.get(response.status_code, ApiError)
    return kind(problem, retry_after_s=retry_after_s)


def from_stranger(response: httpx.Response, said: str, expected: str) -> Unavailable:
    """Return the error for a success that is not what this API answers there."""
    return Unavailable(
        {
            "status": response.status_code,
            "detail": f"{_answered(response)} with {said}, where this API answers with {expected}: "
            "is the address right, or the server of another release?",
        }
    )


def from_closing(code: int | None, reason: str) -> ApiError:
    """Return the error for a WebSocket that was closed early: its code has a status in it."""
    status = (code or 0) - CLOSE_BY_STATUS
    if status in BY_STATUS:
        return BY_STATUS[status]({"status": status, "detail": reason})
    why = f"{code} {reason}".strip() if code else "no word"
    return Unavailable({"detail": f"the connection to the API ended with {why}"})


def from_transport(error: Exception) -> Unavailable:
    """Return the error for a call that got no answer."""
    where = ""
    if isinstance(error, httpx.UnsupportedProtocol):
        return Unavailable({"detail": "the API's address must begin with http:// or https://"})
    if isinstance(error, httpx.RequestError):
        asked = error.request.url
        where = f" at {asked.scheme}://{asked.netloc.decode('ascii')}"
    return Unavailable(
        {"detail": f"no answer from the API{where}: {type(error).__name__}: {error}"}
    )


def told(text: str) -> str:
    """Return what a stranger says of itself as a sentence can hold it: quoted and short."""
    return repr(text if len(text) <= _MOST_TOLD else f"{text[:_MOST_TOLD]}…")


def _answered(response: httpx.Response) -> str:
    """Return who answered, and how: the address without a query, which may hold anything."""
    server = response.headers.get("server")
    who = f" (server {told(server)})" if server else ""
    url = response.request.url.copy_with(query=None)
    return f"{url}{who} answered {response.status_code} {response.reason_phrase}"


def _problem(response: httpx.Response) -> dict[str, Any]:
    """Return the fields of a problem document that are as this API has them."""
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    try:
        body = response.json()
    except ValueError:
        return {}
    if not isinstance(body, dict):
        return {}
    found: dict[str, Any] = {
        name: body[name]
        for name in ("type", "detail", "instance", "reason", "kept_as")
        if isinstance(body.get(name), str)
    }
    if isinstance(body.get("quota"), dict):
        found["quota"] = body["quota"]
    errors = body.get("errors")
    if isinstance(errors, list) and all(map(_is_field_problem, errors)):
        found["errors"] = errors
    return found


def _is_field_problem(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(name), str) for name in ("field", "message")
    )
