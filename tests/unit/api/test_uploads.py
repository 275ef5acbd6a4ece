"""Bodies of any bytes: if no length was declared, they are charged as they come."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.types import Message, Scope

from runner.api import uploads
from runner.api.edge.groups import OPEN_WITHOUT_REDIS, Group, group_of
from runner.api.edge.rates import BYTES_FOR_ONE, CHARGE
from runner.api.edge.routing import Body
from runner.api.problems import Answered
from runner.api.uploads import attentive, in_time, incoming, left, taken
from runner.base.rates import Rate
from runner.base.tasks import attended

MIB = BYTES_FOR_ONE[Body.STREAMED]


class Purse:
    """A caller's rate with this many places left."""

    def __init__(self, left: int) -> None:
        self.left = left

    async def charge(self, length: int) -> JSONResponse | None:
        """Take the places of a body as the middleware does, except the request's own place."""
        self.left -= (length - 1) // MIB
        return None if self.left >= 0 else JSONResponse({}, 429)


def request(
    pieces: Sequence[bytes], purse: Purse | None = None, *, breaks: bool = False
) -> Request:
    """Return a request whose body comes in these pieces."""
    messages: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    end = {"type": "http.disconnect"} if breaks else {"type": "http.request", "body": b""}
    messages.append(end)

    async def receive() -> Message:
        return messages.pop(0)

    scope: Scope = {"type": "http", "headers": []}
    if purse is not None:
        scope[CHARGE] = purse.charge
    return Request(scope, receive)


async def sizes(given: Request, taken: list[int]) -> None:
    """Note the size of each piece that comes."""
    async for piece in incoming(given):
        taken += [len(piece)]


@pytest.mark.parametrize(("size", "places"), [(0, 0), (MIB, 0), (MIB + 1, 1), (5 * MIB, 4)])
async def test_each_mib_but_the_first_takes_a_place(size: int, places: int) -> None:
    purse, taken = Purse(10), list[int]()
    pieces = [b"x" * min(300_000, size - at) for at in range(0, size, 300_000)]
    await sizes(request(pieces, purse), taken)
    assert (sum(taken), purse.left) == (size, 10 - places)


async def test_a_body_ends_where_its_callers_rate_does() -> None:
    taken: list[int] = []
    with pytest.raises(Answered) as refused:
        await sizes(request([b"x" * MIB] * 5, Purse(2)), taken)
    assert refused.value.answer.status_code == 429
    assert sum(taken) == 3 * MIB


async def test_a_body_that_breaks_off_is_no_end() -> None:
    with pytest.raises(HTTPException, match="ended early"):
        await sizes(request([b"x"], breaks=True), [])


def test_what_is_done_in_a_sandbox_is_counted_by_itself() -> None:
    """The rate is ten times the tier's; requests that end something are never delayed."""
    sandbox = "/v1/sandboxes/{sandbox_id}"
    assert group_of("POST", "/v1/sandboxes") is Group.SUBMIT
    assert group_of("POST", f"{sandbox}/processes") is Group.USE
    assert group_of("GET", f"{sandbox}/files/content") is Group.USE
    for path in (sandbox, f"{sandbox}/processes/{{process}}"):
        assert group_of("DELETE", path) is Group.STOP
    assert not OPEN_WITHOUT_REDIS[Group.USE]
    assert Rate(per_minute=60, burst=100).times(10).burst == 1000


async def test_a_body_that_is_not_taken_in_time_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uploads, "UPLOAD_S", 0.05)
    with pytest.raises(HTTPException) as late:
        async with in_time():
            await asyncio.Event().wait()
    assert late.value.status_code == 408


async def test_nothing_is_waited_for_once_the_client_has_hung_up() -> None:
    """The control: work that is done by then is answered."""
    hung_up, ended = asyncio.Event(), asyncio.Event()

    async def receive() -> Message:
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def work() -> int:
        try:
            await asyncio.sleep(0)
            await done.wait()
        finally:
            ended.set()
        return 7

    given, done = Request({"type": "http", "headers": []}, receive), asyncio.Event()
    done.set()
    assert await attended(work(), left(given)) == 7
    done.clear()
    ended.clear()
    asyncio.get_running_loop().call_later(0.05, hung_up.set)
    with pytest.raises(HTTPException, match="hung up"):
        await attended(work(), left(given))
    assert ended.is_set()


async def test_a_body_that_nobody_takes_is_given_up_once_its_client_has_hung_up() -> None:
    """The control: a body that is taken is answered."""
    hung_up = asyncio.Event()

    def sent() -> Request:
        whole = request([b"a", b"b"])

        async def receive() -> Message:
            try:
                return await whole.receive()
            except IndexError:
                await hung_up.wait()
                return {"type": "http.disconnect"}

        return Request(whole.scope, receive)

    async def takes(body: AsyncIterator[bytes]) -> bytes:
        return b"".join([chunk async for chunk in body])

    async def waits(body: AsyncIterator[bytes]) -> None:
        await takes(body)
        await asyncio.Event().wait()

    assert await taken(sent(), takes) == b"ab"
    asyncio.get_running_loop().call_later(0.05, hung_up.set)
    with pytest.raises(HTTPException, match="hung up"):
        await taken(sent(), waits)


@pytest.mark.parametrize("stays", [False, True])
async def test_long_work_ends_with_its_client_and_with_its_time(
    monkeypatch: pytest.MonkeyPatch, *, stays: bool
) -> None:
    """For a client that comes back for the result, only the time ends it."""
    hung_up, ended = asyncio.Event(), asyncio.Event()

    async def receive() -> Message:
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    given = Request({"type": "http", "headers": []}, receive)
    monkeypatch.setattr(uploads, "UPLOAD_S", 0.05)
    with pytest.raises(HTTPException, match="has not moved all bytes") as late:
        await attentive(given, work(), stays=stays)
    assert (late.value.status_code, ended.is_set()) == (503, True)
    ended.clear()
    hung_up.set()
    monkeypatch.setattr(uploads, "UPLOAD_S", 0.5 if stays else 600)
    with pytest.raises(HTTPException, match="has not moved" if stays else "hung up"):
        await attentive(given, work(), stays=stays)
    assert ended.is_set()
