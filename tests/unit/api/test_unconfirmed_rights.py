"""If PostgreSQL cannot confirm rights, the answer says that the failure is ours."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from runner.api.middleware import PRINCIPAL
from runner.api.rights import EndsWithRight
from runner.auth import holding as module
from runner.auth.rights import Rights
from runner.base import duties
from runner.store.db import Database
from runner.words.ids import new_id
from runner.words.principal import Principal, PrincipalKind, Role

BOUND_S = 0.5
PRINCIPAL_OF_TEST = Principal(new_id(), new_id(), PrincipalKind.KEY, "abc", Role.ADMIN)


@pytest.fixture
async def unconfirmed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rights]:
    """Return rights that no check can confirm: the pool of connections is not open."""
    monkeypatch.setattr(module, "UNCONFIRMED_S", BOUND_S)
    monkeypatch.setattr(duties, "LONGEST_PAUSE_S", 0.05)
    nobody = Database(SecretStr("postgresql://nobody@127.0.0.1:1/nothing"))
    async with Rights(nobody, idle=timedelta(hours=1)) as rights:
        yield rights


async def answered(rights: Rights, lasts_s: float, *, begins: bool = False) -> list[Message]:
    """Return the answer to a request whose route takes this long."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def route(_: Scope, __: Receive, send: Send) -> None:
        if begins:
            await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": []})
        await asyncio.sleep(lasts_s)
        if not begins:
            await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope: dict[str, Any] = {"type": "http", "headers": [], PRINCIPAL: PRINCIPAL_OF_TEST}
    await EndsWithRight(route, rights)(scope, receive, send)
    return sent


async def test_a_request_whose_right_stays_unconfirmed_is_answered_503(unconfirmed: Rights) -> None:
    """The answer says how long to wait. It is not 401, because nothing says that the key ended."""
    with capture_logs() as logs:
        start, *rest = await answered(unconfirmed, 5)
    assert start["status"] == HTTPStatus.SERVICE_UNAVAILABLE
    assert (b"retry-after", b"2") in start["headers"]
    assert b"urn:runner:problem:unconfirmed" in rest[0]["body"]
    assert {"event": "rights_unconfirmed", "requests": 1, "log_level": "error"} in logs
    assert not unconfirmed.confirming


async def test_one_whose_answer_had_begun_is_cut_off(unconfirmed: Rights) -> None:
    """So nobody takes the part for the whole."""
    (start,) = await answered(unconfirmed, 5, begins=True)
    assert start["status"] == HTTPStatus.OK


async def test_requests_let_in_meanwhile_go_on(unconfirmed: Rights) -> None:
    """The limit counts for each request from its own start, not from the last success."""
    long = asyncio.create_task(answered(unconfirmed, 30))
    await asyncio.sleep(2 * BOUND_S)
    assert long.done()
    for _ in range(10):
        start, _body = await answered(unconfirmed, BOUND_S / 5)
        assert start["status"] == HTTPStatus.OK
