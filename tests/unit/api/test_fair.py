"""Turns between tenants: a command never waits behind another tenant's whole queue."""

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.edge.fair import AT_ONCE, OF_TENANT, FairTurns, TenantTurns, waits
from runner.api.edge.groups import MCP
from runner.api.edge.json import StrictJson
from runner.api.edge.routing import BODY, TEMPLATE, Body
from runner.api.middleware import PRINCIPAL
from runner.words.principal import Principal, PrincipalKind, Role

BUSY, QUIET, OTHER = (uuid4() for _ in range(3))
COMMAND = "/v1/sandboxes/{sandbox_id}/processes"
MANY = 50


async def settled() -> None:
    """Let every task go on until it waits for another one."""
    for _ in range(10):
        await asyncio.sleep(0)


class Queue:
    """Turns, and in which order tenants got theirs."""

    def __init__(self, *, at_once: int, of_tenant: int) -> None:
        self.turns = FairTurns(at_once=at_once, of_tenant=of_tenant)
        self.got: list[UUID] = []

    async def ask(self, tenant: UUID, times: int = 1) -> list["asyncio.Task[None]"]:
        """Ask for turns; return the tasks that wait for them."""

        async def one() -> None:
            await self.turns.take(tenant)
            self.got.append(tenant)

        asked = [asyncio.create_task(one()) for _ in range(times)]
        await settled()
        return asked

    async def end(self, tenant: UUID) -> None:
        """End one of a tenant's turns."""
        self.turns.give_back(tenant)
        await settled()


async def test_a_newcomer_goes_before_all_that_a_busy_tenant_has_waiting() -> None:
    queue = Queue(at_once=2, of_tenant=2)
    await queue.ask(BUSY, MANY)
    await queue.ask(QUIET)
    assert queue.got == [BUSY, BUSY]
    await queue.end(BUSY)
    assert queue.got == [BUSY, BUSY, QUIET]


async def test_a_tenant_leaves_some_turns_free_for_others() -> None:
    queue = Queue(at_once=AT_ONCE, of_tenant=OF_TENANT)
    await queue.ask(BUSY, MANY)
    assert queue.got == [BUSY] * OF_TENANT
    await queue.ask(QUIET)
    assert queue.got[-1] == QUIET


async def test_tenants_that_all_wait_take_turns() -> None:
    queue = Queue(at_once=1, of_tenant=1)
    for tenant in (BUSY, QUIET, OTHER):
        await queue.ask(tenant, 3)
    for _ in range(8):
        await queue.end(queue.got[-1])
    assert queue.got == [BUSY, QUIET, OTHER] * 3


async def test_who_holds_the_fewest_goes_next() -> None:
    queue = Queue(at_once=3, of_tenant=3)
    await queue.ask(QUIET)
    await queue.ask(BUSY, MANY)
    await queue.ask(QUIET, 2)
    await queue.ask(OTHER)
    assert queue.got == [QUIET, BUSY, BUSY]
    await queue.end(BUSY)
    assert queue.got[-1] == OTHER


async def test_who_leaves_while_waiting_costs_nobody_a_turn() -> None:
    queue = Queue(at_once=1, of_tenant=1)
    await queue.ask(BUSY)
    (leaving,) = await queue.ask(QUIET)
    await queue.ask(OTHER)
    leaving.cancel()
    await settled()
    await queue.end(BUSY)
    assert queue.got == [BUSY, OTHER]
    await queue.end(OTHER)
    await queue.ask(QUIET)
    assert queue.got == [BUSY, OTHER, QUIET]


async def test_a_turn_that_comes_as_its_request_leaves_goes_to_the_next() -> None:
    for leaves_first in (True, False):
        queue = Queue(at_once=1, of_tenant=1)
        await queue.ask(BUSY)
        (leaving,) = await queue.ask(QUIET)
        await queue.ask(OTHER)
        if leaves_first:
            leaving.cancel()
            queue.turns.give_back(BUSY)
        else:
            queue.turns.give_back(BUSY)
            leaving.cancel()
        await settled()
        assert queue.got == [BUSY, OTHER]


# ---- Requests --------------------------------------------------------------------------------


def request(tenant: UUID, template: str = COMMAND, body: Body = Body.NONE) -> Scope:
    """Return the scope of a tenant's request."""
    principal = Principal(tenant, uuid4(), PrincipalKind.KEY, "rk_test", Role.OWNER)
    return {
        "type": "http",
        "method": "POST",
        "path": template,
        "headers": [],
        TEMPLATE: template,
        PRINCIPAL: principal,
        BODY: body,
    }


async def nothing() -> Message:
    """Receive nothing."""
    raise AssertionError("nobody reads a body here")


async def ask(app: ASGIApp, scope: Scope, receive: Receive = nothing) -> int:
    """Return the status of the answer."""
    statuses = []

    async def send(message: Message) -> None:
        statuses.append(message.get("status"))

    await app(scope, receive, send)
    status = statuses[0]
    assert isinstance(status, int)
    return status


async def answer(send: Send) -> None:
    """Begin and end an answer."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def place_of_the_quiet(
    surround: Callable[[ASGIApp], ASGIApp], template: str = COMMAND
) -> int:
    """Return how many requests of a busy tenant end before one that comes after all of them."""
    ended: list[UUID] = []

    async def works(scope: Scope, _receive: Receive, send: Send) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        ended.append(scope[PRINCIPAL].tenant_id)
        await answer(send)

    app = surround(works)
    before = [asyncio.create_task(ask(app, request(BUSY, template))) for _ in range(MANY)]
    await asyncio.gather(*before, ask(app, request(QUIET, template)))
    return ended.index(QUIET)


@pytest.mark.parametrize("template", [COMMAND, MCP, "/process.Process/Start", "/sandboxes"])
async def test_fifty_requests_of_one_tenant_do_not_stand_before_anothers(template: str) -> None:
    assert await place_of_the_quiet(TenantTurns, template) <= 2 * OF_TENANT
    # Without turns, it comes behind them all.
    assert await place_of_the_quiet(lambda app: app, template) == MANY


@pytest.mark.parametrize("how", ["answer", "waits", "time"])
async def test_what_waits_for_a_program_keeps_no_turn(how: str) -> None:
    all_begun = asyncio.Barrier(MANY)

    async def waiting(scope: Scope, _receive: Receive, send: Send) -> None:
        if how == "answer":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if how == "waits":
            waits(Request(scope))
        await all_begun.wait()
        if how != "answer":
            await answer(send)

    app = TenantTurns(waiting, hold_s=0.01 if how == "time" else 60)
    asked = [asyncio.create_task(ask(app, request(BUSY))) for _ in range(MANY)]
    async with asyncio.timeout(60):
        assert await asyncio.gather(*asked) == [200] * MANY


async def test_a_request_that_gets_no_turn_in_time_is_told_to_try_again() -> None:
    over = asyncio.Event()

    async def waiting(_scope: Scope, _receive: Receive, send: Send) -> None:
        await over.wait()
        await answer(send)

    app = TenantTurns(waiting, hold_s=60, within_s=0.01)
    holding = [asyncio.create_task(ask(app, request(BUSY))) for _ in range(OF_TENANT)]
    await settled()
    assert await ask(app, request(BUSY)) == 503
    over.set()
    assert await asyncio.gather(*holding) == [200] * OF_TENANT


async def test_other_requests_take_no_turns() -> None:
    over = asyncio.Event()
    begun = 0

    async def waiting(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal begun
        begun += 1
        await over.wait()
        await answer(send)

    app = TenantTurns(waiting, hold_s=60)
    asked = [asyncio.create_task(ask(app, request(BUSY, "/v1/executions"))) for _ in range(MANY)]
    await settled()
    assert begun == MANY
    over.set()
    await asyncio.gather(*asked)


async def test_a_request_that_fails_gives_its_turn_back() -> None:
    async def fails(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("failed")

    app = TenantTurns(fails, hold_s=60)
    for _ in range(2 * AT_ONCE):
        with pytest.raises(RuntimeError):
            await ask(app, request(BUSY))


class Client:
    """Sends the first half of a body at once, and the second half when it is told to."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self._halves = [b"[", b"]"]

    async def receive(self) -> Message:
        """Receive a half."""
        half = self._halves.pop(0)
        if not self._halves:
            await self.goes_on.wait()
        return {"type": "http.request", "body": half, "more_body": bool(self._halves)}


async def reads(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, and answer."""
    while (await receive())["more_body"]:
        pass
    await answer(send)


@pytest.mark.parametrize("body", [Body.JSON, Body.STREAMED])
async def test_a_body_that_is_not_there_yet_holds_no_turn(body: Body) -> None:
    app: ASGIApp = StrictJson(TenantTurns(reads, hold_s=60))
    clients = [Client() for _ in range(MANY)]
    asked = [
        asyncio.create_task(ask(app, request(BUSY, body=body), client.receive))
        for client in clients
    ]
    await settled()
    # Of the same tenant, so that one turn that is held too long would be noticed.
    async with asyncio.timeout(60):
        assert await ask(app, request(BUSY, body=body), prompt()) == 200
    assert not any(each.done() for each in asked)
    for client in clients:
        client.goes_on.set()
    assert await asyncio.gather(*asked) == [200] * MANY


async def test_with_turns_before_the_body_is_read_slow_bodies_hold_them() -> None:
    """The control."""
    app = TenantTurns(StrictJson(reads), hold_s=60, within_s=0.01)
    clients = [Client() for _ in range(OF_TENANT)]
    asked = [
        asyncio.create_task(ask(app, request(BUSY, body=Body.JSON), client.receive))
        for client in clients
    ]
    await settled()
    assert await ask(app, request(BUSY, body=Body.JSON), prompt()) == 503
    for client in clients:
        client.goes_on.set()
    assert await asyncio.gather(*asked) == [200] * OF_TENANT


def prompt() -> Receive:
    """Return a `receive` that has the whole body at once."""
    client = Client()
    client.goes_on.set()
    return client.receive


async def test_a_streamed_body_that_is_there_keeps_the_turn() -> None:
    """Nobody waited for it, so the rest of the work is done in turn."""
    over = asyncio.Event()
    begun = 0

    async def works(_scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal begun
        begun += 1
        while (await receive())["more_body"]:
            pass
        await over.wait()
        await answer(send)

    app = TenantTurns(works, hold_s=60)
    asked = [
        asyncio.create_task(ask(app, request(BUSY, body=Body.STREAMED), prompt()))
        for _ in range(MANY)
    ]
    await settled()
    assert begun == OF_TENANT
    over.set()
    assert await asyncio.gather(*asked) == [200] * MANY


@pytest.mark.parametrize(("template", "at_once"), [(MCP, OF_TENANT), (COMMAND, MANY)])
async def test_an_answer_that_begins_before_the_work_ends_no_turn(
    template: str, at_once: int
) -> None:
    """The head of an answer to a tool's call comes first; that of any other is the control."""
    over = asyncio.Event()
    begun = 0

    async def works(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal begun
        await send({"type": "http.response.start", "status": 200, "headers": []})
        begun += 1
        await over.wait()
        await send({"type": "http.response.body", "body": b""})

    app = TenantTurns(works, hold_s=60)
    asked = [asyncio.create_task(ask(app, request(BUSY, template))) for _ in range(MANY)]
    await settled()
    assert begun == at_once
    over.set()
    assert await asyncio.gather(*asked) == [200] * MANY
