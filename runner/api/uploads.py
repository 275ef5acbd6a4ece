"""Bodies of any bytes: received as they come, stored or passed on, and checked."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from runner.api import representation
from runner.api.edge.rates import BYTES_FOR_ONE, CHARGE, Charge
from runner.api.edge.routing import Body
from runner.api.problems import Answered
from runner.base.tasks import attended
from runner.store.objects import ObjectStore
from runner.tenants.files import Received

Made = TypeVar("Made")

UPLOAD_S = 3600.0
"""Seconds that an upload may take: far fewer than after which retention calls it abandoned."""


UNKNOWN = "application/octet-stream"
BYTES = {UNKNOWN: {"schema": {"type": "string", "format": "binary"}}}
"""Their description in OpenAPI."""
_FOR_ONE = BYTES_FOR_ONE[Body.STREAMED]


def plain(request: Request) -> None:
    """Refuse a body that is not simply the file's bytes (RFC 9110, 8.4 and 14.5)."""
    if "content-range" in request.headers:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "a file is written whole, not by range")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the file's bytes as they are")


@asynccontextmanager
async def in_time(
    status: HTTPStatus = HTTPStatus.REQUEST_TIMEOUT, detail: str = "the body took too long"
) -> AsyncIterator[None]:
    """Limit how long a body and its handling may take. Raises HTTPException, as it is given."""
    try:
        async with asyncio.timeout(UPLOAD_S):
            yield
    except TimeoutError:
        raise HTTPException(status, detail) from None


class Bill:
    """The cost of a body whose head did not declare its length, as it comes."""

    def __init__(self, scope: Scope) -> None:
        self._charge: Charge | None = scope.get(CHARGE)
        self._size = 0
        self._paid = _FOR_ONE

    async def pay(self, length: int) -> None:
        """Pay for the body's next bytes. Raises Answered if the caller's rate is used up."""
        self._size += length
        while self._charge is not None and self._size > self._paid:
            # Pay one place more; the request itself has paid for the first.
            if (refusal := await self._charge(_FOR_ONE + 1)) is not None:
                raise Answered(refusal)
            self._paid += _FOR_ONE


async def incoming(request: Request) -> AsyncIterator[bytes]:
    """Yield a body as it comes, and charge the bytes that its head did not declare.

    Raises HTTPException if it ends early, and Answered if its caller's rate is used up.
    """
    bill = Bill(request.scope)
    try:
        async for chunk in request.stream():
            await bill.pay(len(chunk))
            yield chunk
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the body ended early") from None


async def received(
    objects: ObjectStore, body: AsyncIterator[bytes], promised: Sequence[bytes], key: str
) -> Received:
    """Store the body as it comes; return what it was once it is complete and correct."""
    digest = hashlib.sha256()
    size = 0

    async def hashed() -> AsyncIterator[bytes]:
        nonlocal size
        async for chunk in body:
            digest.update(chunk)
            size += len(chunk)
            yield chunk

    try:
        async with in_time():
            await objects.write(key, hashed())
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the body ended early") from None
    if any(each != digest.digest() for each in promised):
        raise representation.invalid("content-digest", "the body's sha-256 is another one")
    return Received(digest.hexdigest(), size)


async def left(request: Request) -> None:
    """Wait until the client has hung up, and raise HTTPException then, for an answer to nobody.

    The request's body must have been read.
    """
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise HTTPException(HTTPStatus.BAD_REQUEST, "the client has hung up")


async def taken(
    request: Request, work: Callable[[AsyncIterator[bytes]], Coroutine[Any, Any, Made]]
) -> Made:
    """Return what `work` makes of the body as it comes; end it if the client hangs up.

    Raises HTTPException if the client hangs up or it takes too long.
    """
    read = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        async for chunk in incoming(request):
            yield chunk
        read.set()

    async def leaves() -> None:
        await read.wait()
        await left(request)

    async with in_time():
        return await attended(work(body()), leaves())


async def attentive(
    request: Request, work: Coroutine[Any, Any, Made], *, stays: bool = False
) -> Made:
    """Return what work with many bytes of a sandbox makes, for a request whose body was read.

    Raises HTTPException if it takes too long, and ends it if the client hangs up; with `stays`, it
    goes on then, for a client that comes back for the result.
    """
    slow = (
        f"the sandbox has not moved all bytes within {UPLOAD_S:g} s, so nothing was made; see what "
        "keeps it busy, and try again"
    )
    async with in_time(HTTPStatus.SERVICE_UNAVAILABLE, slow):
        return await (work if stays else attended(work, left(request)))
