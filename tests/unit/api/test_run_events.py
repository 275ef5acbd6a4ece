"""The events of a run become server-sent events."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runner.api.context_views import RunEvents
from runner.door.replies import ResultReply, ValueReply
from runner.door.streams import RunPart
from runner.door.wire import Chunk

DONE = ResultReply(main=True, truncated=False)
JSON = ValueReply("application/json", json=True)


async def written(*parts: RunPart) -> bytes:
    """Return the events of these parts."""

    async def told() -> AsyncIterator[RunPart]:
        for part in parts:
            yield part

    events = RunEvents(told())
    return b"".join([each async for each in events.written()])


async def data(*parts: RunPart) -> Any:
    """Return the data of the only event."""
    first, line, *rest = (await written(*parts)).split(b"\n")
    assert (first, rest) == (b"event: result", [b"", b""])
    return json.loads(line.removeprefix(b"data: "))["data"]


async def test_values_are_told_by_their_kinds() -> None:
    assert await data(
        ValueReply("text/html", json=False),
        Chunk(b"D", b'"<b>\n'),
        Chunk(b"D", "häßlich".encode()[:2]),
        Chunk(b"D", "häßlich".encode()[2:]),
        JSON,
        Chunk(b"D", b'{"a"'),
        Chunk(b"D", b": 1}"),
        ValueReply("a/b+json", json=True),
        DONE,
    ) == {"text/html": '"<b>\nhäßlich', "application/json": {"a": 1}, "a/b+json": None}


async def test_json_is_passed_on_unread() -> None:
    """The node has checked it. The control: who reads this one fails."""
    deep = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(RecursionError):
        json.loads(deep)
    assert deep in await written(JSON, Chunk(b"D", deep), DONE)


@pytest.mark.parametrize("line_break", [b"\n", b"\r", b"\r\n", b"\n\n"])
async def test_json_never_ends_the_event(line_break: bytes) -> None:
    assert await data(JSON, Chunk(b"D", b"[1," + line_break + b"2]"), DONE) == {
        "application/json": [1, 2]
    }
