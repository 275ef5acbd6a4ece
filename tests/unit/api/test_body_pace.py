"""A body that pauses is cut off, unless its route takes input as somebody types it."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from runner.api.edge.pace import PATIENT, Pace
from runner.api.edge.routing import TEMPLATE

CLIENT_S = 0.05


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a body's length."""
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


@pytest.mark.parametrize(
    ("template", "status"), [("/v1/files/{path}", 408), *((each, 200) for each in PATIENT)]
)
async def test_a_pause(template: str, status: int) -> None:
    paused = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal paused
        if paused:
            await asyncio.sleep(10 * CLIENT_S)
            return {"type": "http.request", "body": b"b", "more_body": False}
        paused = True
        return {"type": "http.request", "body": b"a", "more_body": True}

    statuses = []

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "method": "POST", "path": "/", "headers": [], TEMPLATE: template,
        "runner.request_id": "test",
    }  # fmt: skip
    await Pace(reading, CLIENT_S)(scope, receive, send)
    assert statuses == [status]
