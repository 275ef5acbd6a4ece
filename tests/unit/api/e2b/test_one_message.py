"""Calls that take one message: whatever comes behind it is refused before it is held."""

from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest
from fastapi import Request

from runner.api.e2b.daemon import connect
from runner.api.e2b.daemon.calls import only
from runner.api.e2b.daemon.connect import Code, ConnectError
from runner.api.e2b.daemon.messages import WatchDirRequest

ONE = connect.envelope({"path": "a"})
ENDLESS = 10_000


class Body:
    """A request's body, which counts what is taken of it."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self.taken = 0
        self._pieces = pieces

    async def receive(self) -> MutableMapping[str, Any]:
        """Give the next piece."""
        piece = await anext(self._pieces, None)
        if piece is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        self.taken += len(piece)
        return {"type": "http.request", "body": piece, "more_body": True}

    async def only(self) -> WatchDirRequest:
        """Return the one message."""
        headers = [(b"content-type", connect.STREAM.encode())]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
        return await only(Request(scope, self.receive), WatchDirRequest)


async def times(piece: bytes, count: int) -> AsyncIterator[bytes]:
    """Yield a piece so many times."""
    for _ in range(count):
        yield piece


async def test_one_message_is_taken_however_it_is_cut() -> None:
    async def cut() -> AsyncIterator[bytes]:
        for byte in ONE:
            yield bytes([byte])

    assert (await Body(cut()).only()).path == "a"


async def test_no_message_is_refused() -> None:
    with pytest.raises(ConnectError, match="got none"):
        await Body(times(b"", 0)).only()


async def test_the_second_of_endless_messages_is_refused() -> None:
    """Nothing is gathered: a body of the largest size would become gigabytes of messages."""
    body = Body(times(ONE, ENDLESS))
    with pytest.raises(ConnectError) as refused:
        await body.only()
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert body.taken == 2 * len(ONE)


async def test_a_body_above_one_messages_bound_is_refused() -> None:
    """That holds even if the bytes behind the message are never complete."""
    unfinished = bytes(1) + connect.MAX_MESSAGE.to_bytes(4)

    async def long() -> AsyncIterator[bytes]:
        yield ONE + unfinished
        async for each in times(bytes(2**16), ENDLESS):
            yield each

    body = Body(long())
    with pytest.raises(ConnectError) as refused:
        await body.only()
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    assert body.taken <= connect.MAX_MESSAGE + 2**17
