"""Streams of many messages: the event loop goes on meanwhile, and they are paid for."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from fastapi import Request

from runner.api.counting import Surcharge
from runner.api.e2b.daemon import calls, connect
from runner.api.e2b.daemon.calls import IN_A_ROW, messages
from runner.api.e2b.daemon.messages import ProtoMessage, StreamInputRequest
from runner.api.e2b.daemon.process import ALIVE

DATA = {"data": {"input": {"stdin": ""}}}
MANY = 3000
ASKED = Request(
    {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(b"content-type", connect.STREAM.encode())],
    }
)


class UsedUp(Exception):
    """The rate is used up."""


async def once(data: bytes) -> AsyncIterator[bytes]:
    """Yield all bytes at once, as they may come."""
    yield data


async def test_the_event_loop_goes_on_between_messages() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    body = once(connect.envelope(DATA) * MANY)
    found = [each async for each in messages(ASKED, StreamInputRequest, body)]
    task.cancel()
    assert len(found) == MANY
    assert turns >= MANY // IN_A_ROW


@pytest.mark.parametrize("said", [DATA, {"keepalive": {}}], ids=["input", "keepalives"])
async def test_messages_are_paid_for(said: dict[str, object]) -> None:
    """Empty messages are paid for, too."""
    places = 0

    async def charge(cost: int) -> None:
        nonlocal places
        if (places := places + cost) > 5:
            raise UsedUp

    read = partial(
        messages, ASKED, StreamInputRequest, surcharge=Surcharge(charge, 200), ignored=ALIVE
    )
    few = [each async for each in read(body=once(connect.envelope(said) * 1199))]
    assert (len(few), places) == (0 if "keepalive" in said else 1199, 5)
    places = 0
    with pytest.raises(UsedUp):
        [each async for each in read(body=once(connect.envelope(said) * 1200))]


async def test_keepalives_cost_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def parsed(kind: type[ProtoMessage], payload: bytes) -> ProtoMessage:
        nonlocal read
        read += 1
        return kind.model_validate_json(payload)

    monkeypatch.setattr(calls, "parsed", parsed)
    body = connect.envelope({"keepalive": {}}) * MANY + connect.envelope(DATA)
    found = [each async for each in messages(ASKED, StreamInputRequest, once(body), ignored=ALIVE)]
    assert (len(found), read) == (1, 1)
