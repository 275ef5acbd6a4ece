"""A large body costs its sender, and nobody else: rate, event loop and memory."""

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from runner.api.app import create_app
from runner.api.edge import json as strict
from runner.api.edge.json import AT_ONCE, VALUE, JsonRoute, StrictJson, aside
from runner.api.edge.rates import BYTES_FOR_ONE, cost_of
from runner.api.edge.routing import Body, Routing
from runner.api.idempotency import fingerprint
from runner.api.middleware import PRINCIPAL
from runner.base.rates import RateLimits
from runner.base.settings import Settings
from runner.cli.serve import SWITCH_S
from runner.words.ids import new_id
from runner.words.principal import Principal, PrincipalKind, Role, Tier
from tests.support.deployment import Deployment, deployment

MIB = 2**20
FREE = 100
Pieces = tuple[bytes, ...]
JSON = {"Content-Type": "application/json"}
WORST = {
    "one string": b'"' + b"x" * (16 * MIB - 2) + b'"',
    "quotes": b'"' + b'\\"' * (8 * MIB - 1) + b'"',
    "escapes": b'"' + b"\\u20ac" * (16 * MIB // 6) + b'"',
    "spaces": b"[" + b" " * (16 * MIB - 2) + b"]",
    "elements": b"[" + b'"a",' * 49_000 + b'"a"]',
}


@pytest.mark.parametrize(
    ("body", "length", "cost"),
    [
        (Body.NONE, 0, 1),
        (Body.JSON, 1, 1),
        (Body.JSON, BYTES_FOR_ONE[Body.JSON], 1),
        (Body.JSON, BYTES_FOR_ONE[Body.JSON] + 1, 2),
        (Body.JSON, 16 * MIB, 64),
        (Body.STREAMED, 0, 1),
        (Body.STREAMED, 16 * MIB, 16),
    ],
)
def test_a_request_costs_by_the_size_of_its_body(body: Body, length: int, cost: int) -> None:
    assert cost_of(body, length) == cost


@pytest.fixture(scope="module")
def limited(image: None) -> Iterator[Deployment]:
    """Return a deployment with the shipped rates."""
    with deployment(rate_limits=RateLimits()) as made:
        yield made


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_large_body_takes_places_of_its_rate(declared: bool, limited: Deployment) -> None:
    """16 MiB take 64 of 100 places, and so does an ill-formed body. Two bodies leave none."""
    key = limited.key(f"large-{declared}".lower(), tier=Tier.FREE)
    headers = {"Authorization": f"Bearer {key}", **JSON}
    large = b" " * 16 * MIB
    left = []
    with httpx.Client(base_url=limited.url, headers=headers, timeout=60) as client:
        for _ in range(3):
            content = large if declared else iter([large])
            answer = client.post("/v1/executions", content=content)
            left.append((answer.status_code, int(answer.headers["ratelimit-remaining"])))
    assert [status for status, _ in left] == [400, 400, 429]
    # The API knows the size of a chunked body, and charges it, after its headers were written.
    first = FREE - 64 if declared else FREE - 1
    assert [remaining for _, remaining in left] == [first, 0 if declared else first - 64, 0]


async def served(app: ASGIApp, body: bytes | Pieces, tenant: str = "a") -> int:
    """Return the status of the answer to a tenant's body; given in pieces, it is chunked."""

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        id_ = IDS.setdefault(tenant, new_id())
        scope[PRINCIPAL] = Principal(id_, id_, PrincipalKind.KEY, tenant, Role.OWNER)
        await app(scope, receive, send)

    transport = httpx.ASGITransport(app=Routing(known, ()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        content = body if isinstance(body, bytes) else chunked(body)
        return (await client.post("/", content=content, headers=JSON)).status_code


async def chunked(pieces: Pieces) -> AsyncIterator[bytes]:
    """Send pieces one by one."""
    for piece in pieces:
        yield piece


IDS: dict[str, UUID] = {}


@contextmanager
def switching() -> Iterator[None]:
    """Let threads take turns as often as in a process that serves."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


async def lag_while(app: ASGIApp, body: bytes) -> float:
    """Return the longest time for which the event loop was blocked while a body was read."""
    done = asyncio.ensure_future(served(app, body))
    longest = await held_while(done)
    assert await done in {200, 400}
    return longest


async def held_while(done: asyncio.Future[Any]) -> float:
    """Return the longest time for which the event loop was blocked until something was done."""
    longest, last = 0.0, time.perf_counter()
    while not done.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest


@pytest.mark.alone
@pytest.mark.parametrize("name", WORST)
async def test_a_body_is_read_off_the_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown able to fail: reading the same body on the loop blocks it for longer."""
    app = StrictJson(PlainTextResponse("read"), max_bytes=32 * MIB)
    with switching():
        off = min([await lag_while(app, WORST[name]) for _ in range(3)])
        monkeypatch.setattr(strict, "LARGE", 2**40)
        on = min([await lag_while(app, WORST[name]) for _ in range(3)])
    assert off < on, (off, on)
    assert off < 0.25


@pytest.mark.alone
async def test_an_idempotency_key_does_not_hold_the_loop() -> None:
    """Shown able to fail: `json.dumps` of the same value blocks it, even from the same thread."""
    lines = b'{"stdin": "' + b"\\n" * (8 * MIB - 16) + b'"}'
    held: dict[Callable[[Any], object], list[float]] = {fingerprint: [], at_once: []}

    async def identified(scope: Scope, receive: Receive, send: Send) -> None:
        for way, times in held.items():
            work = asyncio.ensure_future(aside(scope, partial(way, scope[VALUE])))
            times.append(await held_while(work))
        await PlainTextResponse("read")(scope, receive, send)

    app = StrictJson(identified, max_bytes=32 * MIB)
    with switching():
        for _ in range(5):
            assert await served(app, lines) == 200
    # How long either takes is the host's affair.
    assert 2 * min(held[fingerprint]) < min(held[at_once]), held


def at_once(sent: dict[str, str]) -> bytes:
    """Return a fingerprint, made as it was before."""
    return b"2" + hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).digest()


async def test_a_tenants_large_bodies_leave_memory_for_others() -> None:
    """It gets half of the budget, then 429; others' bodies are read; all is given back."""
    gate = asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await PlainTextResponse("read")(scope, receive, send)

    app = StrictJson(waits, max_bytes=MIB, within_s=0.5)
    body = json.dumps("x" * (MIB - 2)).encode()
    greedy = [asyncio.create_task(served(app, body)) for _ in range(2 * AT_ONCE)]
    done, waiting = await asyncio.wait(greedy, timeout=5)
    assert {await each for each in done} == {429}
    assert AT_ONCE / 4 < len(waiting) <= AT_ONCE / 2
    other = asyncio.create_task(served(app, body, "b"))
    await asyncio.sleep(0.5)
    assert not other.done()
    gate.set()
    assert {await each for each in waiting} == {await other} == {200}
    assert await served(app, body) == 200


async def test_a_burst_of_large_bodies_waits_for_memory() -> None:
    """All are read, the later ones as the first are answered; 429 only after too long a wait."""
    most = 0
    at_once = 0

    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal most, at_once
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.05)
        at_once -= 1
        await PlainTextResponse("read")(scope, receive, send)

    app = StrictJson(answers, max_bytes=MIB, within_s=20)
    body = json.dumps("x" * (MIB - 2)).encode()
    burst = [asyncio.create_task(served(app, body)) for _ in range(3 * AT_ONCE)]
    assert {await each for each in burst} == {200}
    assert most <= AT_ONCE / 2


async def test_a_chunked_body_takes_what_has_come_of_it() -> None:
    """Any number of small ones fit at once; large ones get a key's share, as if declared."""
    gate = asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await PlainTextResponse("read")(scope, receive, send)

    app = StrictJson(waits, max_bytes=MIB, within_s=0.5)
    small = [asyncio.create_task(served(app, (b"[1,", b"2]"))) for _ in range(4 * AT_ONCE)]
    pieces = (b'"', *[b"x" * (MIB // 8 - 1)] * 8, b'"')
    large = [asyncio.create_task(served(app, pieces)) for _ in range(2 * AT_ONCE)]
    done, waiting = await asyncio.wait([*small, *large], timeout=5)
    assert {await each for each in done} == {429}
    assert done <= set(large)
    assert AT_ONCE / 4 < len(waiting) - len(small) <= AT_ONCE / 2
    gate.set()
    assert {await each for each in waiting} == {200}
    assert await served(app, pieces) == 200


async def test_a_tenants_bodies_are_read_in_turn_with_others() -> None:
    """However many bodies one tenant has waiting, another waits for at most one of them."""
    order: list[str] = []
    app = StrictJson(PlainTextResponse("read"), max_bytes=16 * MIB)
    body = json.dumps("x" * 4 * MIB).encode()

    async def one(tenant: str) -> None:
        assert await served(app, body, tenant) == 200
        order.append(tenant)

    many = [asyncio.create_task(one("a")) for _ in range(10)]
    await asyncio.sleep(0)
    await asyncio.gather(one("b"), *many)
    assert order.index("b") <= 3


def test_every_route_with_a_body_uses_the_value_that_was_checked() -> None:
    """The checked value is the one that is used, and it is parsed once."""
    app = create_app(Unopened())  # type: ignore[arg-type]
    parsing = [
        each
        for router in app.routes
        for each in getattr(getattr(router, "original_router", None), "routes", ())
        if each.body_field is not None
    ]
    assert len(parsing) > 10
    assert [each.path for each in parsing if not isinstance(each, JsonRoute)] == []


class Unopened:
    """Parts of an app that serves nothing, which needs only the settings and a registry."""

    settings = Settings(node="work")
    registry = CollectorRegistry()

    def __getattr__(self, name: str) -> object:
        return True
