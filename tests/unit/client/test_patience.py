"""The SDK repeats a request when the API says so, within limits, and does nothing twice."""

import io
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from agent_runner import Client, TooMany, Unavailable
from agent_runner.transport import retry_after_s
from tests.support.answering import Request, reply, served
from tests.support.flavours import Connect
from tests.unit.client.test_strangers import (
    ID,
    KEY,
    LIVES,
    RUNNING,
    drained,
    process,
    sandbox,
)

PROBLEM = json.dumps({"type": "urn:runner:problem:rate", "detail": "too fast"}).encode()
EMPTY_PAGE = b'{"items": [], "next_cursor": null}'


class Busy:
    """Refuses some requests, and answers all others as a test says."""

    def __init__(
        self,
        then: tuple[int, bytes, str],
        *,
        refusals: int = 1,
        status: int = 429,
        **headers: str,
    ) -> None:
        self._then = then
        self._refusals = refusals
        self._status = status
        self._headers = headers
        self.asked: list[str] = []

    def __call__(self, request: Request) -> None:
        """Answer one request."""
        self.asked.append(f"{request.command} {request.path}")
        if len(self.asked) <= self._refusals:
            kind = "application/problem+json"
            reply(request, self._status, PROBLEM, kind, **self._headers)
            return
        reply(request, *self._then)


def as_json(body: bytes, status: int = 200) -> tuple[int, bytes, str]:
    """Return an answer of JSON."""
    return status, body, "application/json"


EXECUTION = as_json(json.dumps(RUNNING).encode())
SANDBOX = as_json(json.dumps(LIVES).encode())
BYTES = (200, b"", "application/octet-stream")
DONE = (204, b"", "application/json")
LEFT = b'id: 1\nevent: ended\ndata: {"offset": 1, "exit_code": 0}\n\n'
ENDED = b'id: 1\nevent: state\ndata: {"state": "succeeded"}\n\n'
REPEATED: dict[str, tuple[Callable[[Client], Any], tuple[int, bytes, str]]] = {
    "a reading": (lambda api: api.list(), as_json(EMPTY_PAGE)),
    "a download": (lambda api: drained(api.download(ID, "a")), BYTES),
    "events": (lambda api: list(api.events(ID)), (200, ENDED, "text/event-stream")),
    "a deletion": (lambda api: api.delete_secret("a"), DONE),
    "a cancellation": (lambda api: api.cancel(ID), EXECUTION),
    "a submission with a key": (
        lambda api: api.submit(command=["true"], idempotency_key="k"), EXECUTION,
    ),
    "a new sandbox with a key": (lambda api: api.sandboxes.create(idempotency_key="k"), SANDBOX),
    "a reading of a sandbox": (lambda api: sandbox(api).refresh(), SANDBOX),
    "a pause": (lambda api: sandbox(api).pause(), SANDBOX),
    "an end of a sandbox": (lambda api: sandbox(api).kill(), DONE),
    "a process's output": (
        lambda api: list(process(api).output()), (200, LEFT, "text/event-stream"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REPEATED)
def test_what_is_safe_to_repeat_waits_and_is_repeated(connect: Connect, what: str) -> None:
    use, then = REPEATED[what]
    busy = Busy(then, Retry_After="1")
    with served(busy) as url, connect(url, KEY) as api:
        began = time.monotonic()
        use(api)
        assert time.monotonic() - began >= 1
    assert len(busy.asked) == 2
    assert len(set(busy.asked)) == 1


@pytest.mark.parametrize(
    "use",
    [
        lambda api: api.submit(command=["true"]),
        lambda api: api.keys.create("ci", "viewer"),
        lambda api: api.files.put("a", io.BytesIO(b"abc")),
        lambda api: api.sandboxes.create(),
        lambda api: sandbox(api).start("true"),
        lambda api: process(api).write(b"a"),
    ],
    ids=[
        "a submission without a key",
        "a new key",
        "a file that was read",
        "a new sandbox without a key",
        "a new process",
        "input",
    ],
)
def test_what_is_not_safe_to_repeat_is_refused_at_once(
    connect: Connect, use: Callable[[Client], Any]
) -> None:
    """A body that cannot be sent twice is refused, too. The error says when to ask again."""
    busy = Busy(EXECUTION, Retry_After="1")
    with served(busy) as url, connect(url, KEY) as api, pytest.raises(TooMany) as refused:
        use(api)
    assert len(busy.asked) == 1
    assert refused.value.retry_after_s == 1


@pytest.mark.parametrize(("retry_for_s", "after"), [(0, "0"), (0, "1"), (2, "3"), (60, "86400")])
def test_a_wait_that_would_be_in_vain_is_not_begun(
    connect: Connect, retry_for_s: float, after: str
) -> None:
    busy = Busy(as_json(EMPTY_PAGE), Retry_After=after)
    with (
        served(busy) as url,
        connect(url, KEY, retry_for_s=retry_for_s) as api,
        pytest.raises(TooMany, match="too fast") as refused,
    ):
        api.list()
    assert len(busy.asked) == 1
    assert refused.value.retry_after_s == float(after)


def test_all_waits_of_a_request_are_bounded_together(connect: Connect) -> None:
    """This also holds for short waits: nobody is asked without a pause."""
    busy = Busy(as_json(EMPTY_PAGE), refusals=100, Retry_After="0")
    with (
        served(busy) as url,
        connect(url, KEY, retry_for_s=3) as api,
        pytest.raises(TooMany),
    ):
        api.list()
    assert 2 <= len(busy.asked) <= 6


@pytest.mark.parametrize(
    ("status", "after"),
    [(429, ""), (429, "soon"), (503, "1")],
    ids=["says no time", "says no time that can be read", "is unavailable"],
)
def test_other_refusals_are_raised_at_once(connect: Connect, status: int, after: str) -> None:
    busy = Busy(as_json(EMPTY_PAGE), status=status, Retry_After=after)
    with (
        served(busy) as url,
        connect(url, KEY) as api,
        pytest.raises((TooMany, Unavailable)),
    ):
        api.list()
    assert len(busy.asked) == 1


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 5000, None),
        ("Wed, 21 Oct 99999 07:28:00 +9999999999999", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
    ],
    ids=lambda each: str(each)[:40],
)
def test_a_time_is_told_in_seconds_or_as_a_date(said: str, meant: float | None) -> None:
    """This follows RFC 9110 §10.2.3."""
    assert retry_after_s(httpx.Response(429, headers={"Retry-After": said})) == meant


def test_a_date_to_come_is_waited_for() -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    headers = {"Retry-After": format_datetime(later, usegmt=True)}
    found = retry_after_s(httpx.Response(429, headers=headers))
    assert found == pytest.approx(3600, abs=60)


def test_the_body_is_sent_again(connect: Connect) -> None:
    """The complete body is sent."""
    bodies: list[bytes] = []

    def answer(request: Request) -> None:
        bodies.append(request.body)
        if len(bodies) == 1:
            reply(request, 429, PROBLEM, "application/problem+json", Retry_After="0")
        else:
            reply(request, 200, EXECUTION[1], "application/json")

    with served(answer) as url, connect(url, KEY) as api:
        api.submit(code="print(1)", language="python", idempotency_key="k")
    assert bodies[0] == bodies[1]
    assert json.loads(bodies[0])["code"] == "print(1)"
