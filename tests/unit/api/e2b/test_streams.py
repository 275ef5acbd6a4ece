"""A stream of answers: alive while nothing happens, ended in time, and closed when nobody hears."""

import asyncio
import json
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import pytest
from fastapi import Request

from runner.api.e2b.daemon import calls
from runner.api.e2b.daemon.answers import Answer
from runner.api.e2b.daemon.calls import Stream
from runner.api.e2b.daemon.connect import Code, ConnectError
from runner.words.errors import Gone, NodeAway, RunnerError

HEADER = 5


def asking(**headers: str) -> Request:
    """Return a request with these headers."""
    given = [
        (name.replace("_", "-").lower().encode(), text.encode()) for name, text in headers.items()
    ]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": given})


class Client:
    """Whoever gets a stream's frames; it leaves when it is told to."""

    def __init__(self) -> None:
        self.leaves = asyncio.Event()
        self.alive = asyncio.Event()
        self.head: MutableMapping[str, Any] = {}
        self.frames: list[tuple[int, Any]] = []

    async def receive(self) -> MutableMapping[str, Any]:
        """Say nothing before leaving."""
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Take a frame."""
        if message["type"] == "http.response.start":
            self.head = message
            return
        body = message["body"]
        self.frames.append((body[0], json.loads(body[HEADER:])))
        if "alive" in self.frames[-1][1]:
            self.alive.set()

    async def get(self, stream: Stream) -> list[tuple[int, Any]]:
        """Return all frames."""
        await stream({"type": "http"}, self.receive, self.send)
        return self.frames


async def failing(error: Exception) -> AsyncGenerator[Answer, None]:
    """Answer once, and fail."""
    yield {"n": 1}
    raise error


async def test_answers_come_in_order_and_the_end_is_clean() -> None:
    async def answers() -> AsyncGenerator[Answer, None]:
        yield {"n": 1}
        yield {"n": 2}

    client = Client()
    assert await client.get(Stream(asking(), answers(), {"alive": {}}, None)) == [
        (0, {"n": 1}),
        (0, {"n": 2}),
        (2, {}),
    ]
    names = {name for name, _ in client.head["headers"]}
    assert b"content-length" not in names


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectError(Code.DATA_LOSS, "lost"), "data_loss"),
        (Gone("it has ended", "killed"), "unavailable"),
        (NodeAway("away"), "unavailable"),
        (RunnerError("a secret of ours"), "internal"),
    ],
)
async def test_a_failure_is_told_at_the_end(error: Exception, code: str) -> None:
    first, (flags, end) = await Client().get(Stream(asking(), failing(error), {}, None))
    assert first == (0, {"n": 1})
    assert (flags, end["error"]["code"]) == (2, code)
    assert "secret" not in end["error"]["message"]


async def test_a_fault_of_ours_leaves_the_answer_incomplete() -> None:
    """Then the server cuts the connection: a clean end would be a lie."""
    client = Client()
    with pytest.raises(ZeroDivisionError):
        await client.get(Stream(asking(), failing(ZeroDivisionError()), {}, None))
    assert client.frames == [(0, {"n": 1})]


async def test_time_is_limited_and_the_work_is_closed() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[Answer, None]:
        try:
            yield {"n": 1}
            await asyncio.Event().wait()
        finally:
            closed.set()

    *_, (flags, end) = await Client().get(Stream(asking(), endless(), {}, 0.05))
    assert (flags, end["error"]["code"]) == (2, "deadline_exceeded")
    assert closed.is_set()


async def test_a_client_that_leaves_ends_the_work_and_gets_no_end() -> None:
    closed = asyncio.Event()
    client = Client()

    async def endless() -> AsyncGenerator[Answer, None]:
        try:
            yield {"n": 1}
            client.leaves.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    assert await client.get(Stream(asking(), endless(), {}, None)) == [(0, {"n": 1})]
    assert closed.is_set()


async def test_a_silent_stream_is_kept_alive_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its client asks how often. A message that comes meanwhile is sent once."""
    monkeypatch.setattr(calls, "_every_s", lambda _: 0.01)
    client = Client()

    async def slow() -> AsyncGenerator[Answer, None]:
        for n in range(3):
            client.alive.clear()
            await client.alive.wait()
            yield {"n": n}

    found = await client.get(Stream(asking(), slow(), {"alive": {}}, None))
    assert [frame for _, frame in found if "n" in frame] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert sum("alive" in frame for _, frame in found) >= 3


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 90), ("50", 50), ("0", 1), ("9999", 600), ("-1", 90), ("often", 90), ("99999", 90)],
)
def test_how_often_a_silent_stream_speaks_is_bounded(header: str | None, seconds: int) -> None:
    assert calls._every_s(header) == seconds
