"""Requests and their failures: what every part of the client sends by."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from runner.client.errors import Unavailable, from_response, from_transport


def base_url(url: str) -> str:
    """Return a deployment's address without the page or the version that people copy with it."""
    url = url.rstrip("/")
    for below in ("/docs", "/v1"):
        url = url.removesuffix(below).rstrip("/")
    return url


@contextmanager
def translated() -> Iterator[None]:
    """Make the transport's failures ours."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise from_transport(error) from error


def send(http: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    """Send a request and return the answer. Raises ApiError for one that refuses."""
    with translated():
        response = http.request(method, path, **options)
    if response.is_error:
        raise from_response(response)
    return response


def call(http: httpx.Client, method: str, path: str, **options: Any) -> dict[str, Any]:
    """Send a request and return the JSON object that it is answered with. Raises ApiError."""
    try:
        body = send(http, method, path, **options).json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Unavailable({"detail": "what answered is not this API"})
    return body


@contextmanager
def stream(http: httpx.Client, path: str, **options: Any) -> Iterator[Iterator[bytes]]:
    """Yield what a GET is answered with, in pieces. Raises ApiError."""
    with translated(), http.stream("GET", path, **options) as response:
        if response.is_error:
            response.read()
            raise from_response(response)
        yield response.iter_bytes()


def params(**values: Any) -> dict[str, Any]:
    """Return the parameters that have a value."""
    return {name: value for name, value in values.items() if value is not None}
