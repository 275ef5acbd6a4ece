# Written by scripts/make-sync from _async/calls.py: change that.
"""Sends requests: what every part of the client asks the API by."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import httpx_sse

from agent_runner._sync.local import sleep
from agent_runner.answers import Answer, EventAnswer, read, read_event
from agent_runner.transport import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    base_url,
    expect_kind,
    expect_nothing,
    pause_s,
    refuse,
    translated,
)

T = TypeVar("T")


class Patient(httpx.Client):
    """Asks again when the API says to, after 429, where that repeats nothing that was done.

    No request waits for longer than `retry_for_s` seconds in all. One that would have to, or whose
    body cannot be sent twice, is answered as the API answered it.
    """

    def __init__(self, url: str, api_key: str, *, retry_for_s: float) -> None:
        super().__init__(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )
        self._retry_for_s = retry_for_s

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, and again for as long as it may wait."""
        until = time.monotonic() + self._retry_for_s
        while True:
            response = super().send(request, **options)
            after = pause_s(response)
            if after is None or time.monotonic() + after > until:
                return response
            response.close()
            sleep(after)


def connection(url: str, api_key: str, *, retry_for_s: float) -> Patient:
    """Return what sends requests to a deployment with a key. Raises Unavailable for no address."""
    with translated():
        return Patient(base_url(url), api_key, retry_for_s=retry_for_s)


def send(http: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    """Send a request and return the answer. Raises ApiError for one that is no success."""
    with translated():
        response = http.request(method, path, **options)
    refuse(response)
    return response


def call(http: httpx.Client, answer: Answer[T], method: str, path: str, **options: Any) -> T:
    """Send a request and return what it is answered with. Raises ApiError."""
    return read(answer, send(http, method, path, **options))


def delete(http: httpx.Client, path: str, **options: Any) -> None:
    """Delete something. Raises ApiError, also when something else than the API says it did."""
    order(http, "DELETE", path, **options)


def order(http: httpx.Client, method: str, path: str, **options: Any) -> None:
    """Send a request that the API answers with nothing but that it is done. Raises ApiError."""
    expect_nothing(send(http, method, path, **options))


@contextmanager
def stream(
    http: httpx.Client, path: str, *, kind: str = "application/octet-stream", **options: Any
) -> Iterator[Iterator[bytes]]:
    """Yield what a GET is answered with, bytes of this kind, in pieces. Raises ApiError."""
    with translated():
        with http.stream("GET", path, **options) as response:
            expect(response, kind)
            yield response.iter_bytes()


def events(
    http: httpx.Client,
    answer: EventAnswer[T],
    path: str,
    *,
    method: str = "GET",
    **options: Any,
) -> Iterator[T]:
    """Yield what the events of a stream say. Raises ApiError; ends as the stream does."""
    with opened_events(http, answer, path, method=method, **options) as told:
        for each in told:
            yield each


@contextmanager
def opened_events(
    http: httpx.Client,
    answer: EventAnswer[T],
    path: str,
    *,
    method: str = "GET",
    **options: Any,
) -> Iterator[Iterator[T]]:
    """Open a stream of events now, and yield what they say. Both raise ApiError."""
    with translated():
        with httpx_sse.connect_sse(http, method, path, **options) as source:
            expect(source.response, "text/event-stream")
            yield _events(answer, source)


def _events(answer: EventAnswer[T], source: httpx_sse.EventSource) -> Iterator[T]:
    with translated():
        for sent in source.iter_sse():
            if sent.data:  # A keep-alive is a comment, which ends an event without any data.
                yield read_event(answer, source.response, sent)


def expect(response: httpx.Response, kind: str) -> None:
    """Raise ApiError if a streamed answer is no success, or of another kind."""
    if not response.is_success:
        response.read()
    expect_kind(response, kind)
