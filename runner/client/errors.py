"""What can go wrong with a call. The tree is drawn in `runner.client`."""

from contextlib import suppress
from http import HTTPStatus
from typing import Any

import httpx


class ApiError(Exception):
    """The API refused. `detail` is for people, `type` for programs."""

    def __init__(self, problem: dict[str, Any]) -> None:
        self.status: int = problem.get("status", 0)
        self.type: str = problem.get("type", "about:blank")
        self.detail: str = problem.get("detail", "")
        self.instance: str | None = problem.get("instance")
        self.errors: list[dict[str, str]] = problem.get("errors", [])
        self.quota: dict[str, Any] | None = problem.get("quota")
        fields = "".join(f"\n  {each['field']}: {each['message']}" for each in self.errors)
        super().__init__(f"{self.detail}{fields}")


class NotAuthenticated(ApiError):
    """The key is missing or not accepted."""


class NotPermitted(ApiError):
    """The key's role lacks the permission."""


class NotFound(ApiError):
    """There is no such thing for this key."""


class Conflict(ApiError):
    """The request contradicts what is stored."""


class Invalid(ApiError):
    """The request is not valid; `errors` names the fields."""


class TooMany(ApiError):
    """As much as may be now; `quota`, if it is one, says of what and when some of it is free."""


class Unavailable(ApiError):
    """The service does not answer, or not now.

    Safe to try again; a submission with the same idempotency key, as it may have arrived.
    """


BY_STATUS: dict[int, type[ApiError]] = {
    HTTPStatus.BAD_REQUEST: Invalid,
    HTTPStatus.UNAUTHORIZED: NotAuthenticated,
    HTTPStatus.FORBIDDEN: NotPermitted,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
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


def from_response(response: httpx.Response) -> ApiError:
    """Return the error that a read response stands for."""
    problem: dict[str, Any] = {
        "status": response.status_code,
        "detail": f"{response.request.url.copy_with(query=None)} answered {response.status_code} "
        f"{response.reason_phrase}, and not as this API does: is the address right?",
    }
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        with suppress(ValueError, TypeError):
            problem |= response.json()
    return BY_STATUS.get(response.status_code, ApiError)(problem)


def from_transport(error: httpx.HTTPError | httpx.InvalidURL) -> Unavailable:
    """Return the error for a call that got no answer."""
    return Unavailable({"detail": f"no answer from the API: {type(error).__name__}: {error}"})
