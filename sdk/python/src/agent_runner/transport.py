"""Rules of every request of the SDK: how long it waits, when it is repeated, its errors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx

from agent_runner.answers import NOTHING, media_type
from agent_runner.errors import from_response, from_stranger, from_transport, told

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
PATIENT = httpx.Timeout(600.0, connect=CONNECT_TIMEOUT_S)
"""For what takes as long as there are files to copy, or as a program takes to read its input."""
RESUME_AFTER_S = 0.5
MAX_RESUMES = 20
RETRY_FOR_S = 60.0
"""As long as the window of the API's rate limits."""
REPEATABLE = {"runner.repeatable": True}
"""The extension of a request that may be repeated though its method does not say so."""
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""Of RFC 9110 §9.2.2, those that the API has."""
LEAST_PAUSE_S = 0.5
MAX_PORT = 65535
LOOPBACK = "127.0.0.1"
"""The address of a local port that stands for one in a sandbox."""
_SECONDS = re.compile(r"[0-9]{1,9}")


def pause_s(response: httpx.Response) -> float | None:
    """Return in how many seconds to repeat the request of this answer; None for never."""
    request = response.request
    if response.status_code != HTTPStatus.TOO_MANY_REQUESTS or not _is_repeatable(request):
        return None
    after = retry_after_s(response)
    return None if after is None else max(after, LEAST_PAUSE_S)


def _is_repeatable(request: httpx.Request) -> bool:
    harmless = (
        request.method in IDEMPOTENT
        or "idempotency-key" in request.headers
        or request.extensions.keys() >= REPEATABLE.keys()
    )
    # A file is read as it is sent, and is at its end then.
    return harmless and isinstance(request.stream, httpx.ByteStream)


def retry_after_s(response: httpx.Response) -> float | None:
    """Return in how many seconds to ask again; None if the answer does not say (RFC 9110 §10.2.3).

    What a proxy says may be a date.
    """
    said = response.headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(said):
        return float(said)
    try:
        at = parsedate_to_datetime(said)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def base_url(url: str) -> str:
    """Return a deployment's address without the page or the version that people copy with it.

    Raises InvalidURL.
    """
    url = url.rstrip("/")
    for below in ("/docs", "/v1"):
        url = url.removesuffix(below).rstrip("/")
    if (httpx.URL(url).port or 0) > MAX_PORT:
        raise httpx.InvalidURL(f"the port of {url} is more than {MAX_PORT}")
    return url


@contextmanager
def translated() -> Iterator[None]:
    """Make the transport's failures ours."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise from_transport(error) from error


def refuse(response: httpx.Response) -> None:
    """Raise ApiError if an answer is no success: a redirect is none, the API makes none."""
    if not response.is_success:
        raise from_response(response, retry_after_s=retry_after_s(response))


def expect_kind(response: httpx.Response, kind: str) -> None:
    """Raise ApiError if an answer is no success, or of another kind."""
    refuse(response)
    if media_type(response) != kind:
        raise from_stranger(response, told(media_type(response)), f"bytes of the type {kind}")


def expect_nothing(response: httpx.Response) -> None:
    """Raise ApiError unless the API says that it is done, and nothing else."""
    if response.status_code != HTTPStatus.NO_CONTENT:
        raise from_stranger(response, told(media_type(response)), NOTHING)


def keyed(idempotency_key: str | None) -> dict[str, str]:
    """Return the headers that make a request safe to repeat."""
    return {"Idempotency-Key": idempotency_key} if idempotency_key else {}


def params(**values: Any) -> dict[str, Any]:
    """Return the parameters that have a value."""
    return {name: value for name, value in values.items() if value is not None}
