"""How calls of the Connect protocol are answered: unary ones, and those whose answer is a stream.

A stream's answer has begun before the call is understood: whatever is wrong is told at its end, as
the protocol has it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from runner.api.context import request_id
from runner.api.counting import Surcharge
from runner.api.e2b.daemon import connect
from runner.api.e2b.daemon.answers import Answer
from runner.api.e2b.daemon.connect import Code, ConnectError, Envelopes
from runner.api.e2b.daemon.failures import told
from runner.api.e2b.daemon.messages import ProtoMessage, parsed
from runner.api.edge.json import LARGE, JsonRoute
from runner.api.uploads import incoming
from runner.base.tasks import aside, attended
from runner.words.errors import RunnerError

M = TypeVar("M", bound=ProtoMessage)
Answers = AsyncGenerator[Answer, None]

KEEPALIVE_S = 90
MOST_KEEPALIVE_S = 600
IN_A_ROW = 50
"""How many messages are read before the event loop goes on."""
MANY = {connect.STREAM: {"schema": {"type": "string", "format": "binary"}}}
"""The description of a stream's messages in OpenAPI."""

_log = structlog.get_logger("runner.api")


def timeout_of(request: Request) -> float | None:
    """Return how many seconds a call may take; None for no limit. Raises ConnectError."""
    return connect.timeout(request.headers.get("connect-timeout-ms"))


def too_late(timeout_s: float | None) -> ConnectError:
    """Return the failure of a call that took longer than its client permits."""
    return ConnectError(Code.DEADLINE_EXCEEDED, f"the call took longer than {timeout_s:g} s")


class CallRoute(JsonRoute):
    """A route of calls: what is wrong before it answers is told in the protocol's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the protocol's checks, time limit and failures."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await _in_time(request, handler)
            except ConnectError as error:
                return _refusal(request, error)
            except RequestValidationError as error:
                return _refusal(request, ConnectError(Code.INVALID_ARGUMENT, _faults(error)))
            except RunnerError as error:
                if (known := told(error)) is None:
                    raise
                return _refusal(request, known)

        return handle


async def _in_time(
    request: Request, handler: Callable[[Request], Coroutine[Any, Any, Response]]
) -> Response:
    headers = request.headers
    connect.check(headers.get("connect-protocol-version"), headers.get("content-encoding"))
    timeout_s = timeout_of(request)
    try:
        async with asyncio.timeout(timeout_s) as limit:
            return await handler(request)
    except TimeoutError:
        if limit.expired():
            raise too_late(timeout_s) from None
        raise


def _refusal(request: Request, error: ConnectError) -> Response:
    """Return a failure; a client that wants a stream reads it nowhere but at the stream's end."""
    if _media_type(request) == connect.STREAM:
        return ended(error)
    return JSONResponse(error.body(), connect.STATUS[error.code])


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _faults(error: RequestValidationError) -> str:
    faults = (
        f"{'.'.join(str(part) for part in each['loc'] if part != 'body') or 'message'}: "
        f"{each['msg']}"
        for each in error.errors()[:5]
    )
    return f"the message is not valid: {'; '.join(faults)}"


async def messages(
    request: Request,
    kind: type[M],
    body: AsyncIterator[bytes],
    surcharge: Surcharge | None = None,
    ignored: frozenset[bytes] = frozenset(),
) -> AsyncGenerator[M, None]:
    """Yield a stream's messages as its body comes, without those that are `ignored`.

    `surcharge` counts each of them. Raises ConnectError, and what the surcharge raises.
    """
    headers = request.headers
    connect.check(headers.get("connect-protocol-version"), headers.get("connect-content-encoding"))
    if (media_type := _media_type(request)) != connect.STREAM:
        raise ConnectError(
            Code.UNIMPLEMENTED, f"a stream must be {connect.STREAM}, not {media_type!r:.80}"
        )
    envelopes = Envelopes()
    count = 0
    async for chunk in body:
        for payload in envelopes.feed(chunk):
            count += 1
            if count % IN_A_ROW == 0:
                # Thousands of messages may have come at once.
                await asyncio.sleep(0)
            if surcharge is not None:
                await surcharge.add()
            if payload in ignored:
                continue
            yield await aside(partial(parsed, kind), payload, inline=LARGE)
    envelopes.finish()


async def only(request: Request, kind: type[M]) -> M:
    """Return a stream's one message, without reading far past it.

    Raises ConnectError if there is another number of them.
    """
    found: M | None = None
    body = _short(incoming(request), connect.HEADER + connect.MAX_MESSAGE)
    async with aclosing(messages(request, kind, body)) as each:
        async for said in each:
            if found is not None:
                raise ConnectError(
                    Code.INVALID_ARGUMENT, "this call takes one message, and not several"
                )
            found = said
    if found is None:
        raise ConnectError(Code.INVALID_ARGUMENT, "this call takes one message, and got none")
    return found


async def _short(body: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """Yield a body of at most `most` bytes. Raises ConnectError at the first byte above."""
    async for chunk in body:
        if (most := most - len(chunk)) < 0:
            raise ConnectError(
                Code.RESOURCE_EXHAUSTED,
                f"this call takes one message of at most {connect.MAX_MESSAGE} bytes",
            )
        yield chunk


def ended(error: ConnectError | None = None, answer: Answer | None = None) -> Response:
    """Return a whole stream at once: an answer, if there is one, and the end."""
    body = b"" if answer is None else connect.envelope(answer)
    return Response(body + connect.last(error), media_type=connect.STREAM)


async def streamed(
    request: Request,
    kind: type[M],
    work: Callable[[M, float | None], Answers],
    alive: Answer,
) -> Response:
    """Answer a call with one message by a stream; `work` is told the seconds that it may take."""
    try:
        asked, timeout_s = await only(request, kind), timeout_of(request)
    except ConnectError as error:
        return ended(error)
    return Stream(request, work(asked, timeout_s), alive, timeout_s)


class Stream(Response):
    """A stream of answers, which goes on until they end, time is up, or the client leaves.

    While nothing else happens, it repeats `alive`. If the client leaves, `answers` is closed.
    """

    def __init__(
        self, request: Request, answers: Answers, alive: Answer, timeout_s: float | None
    ) -> None:
        super().__init__(status_code=HTTPStatus.OK, media_type=connect.STREAM)
        # Its length is not known. A proxy that gathered it would hold back what happens.
        del self.headers["content-length"]
        self.headers["X-Accel-Buffering"] = "no"
        self._request = request
        self._answers = answers
        self._alive = connect.envelope(alive)
        self._timeout_s = timeout_s
        self._every_s = _every_s(request.headers.get("keepalive-ping-interval"))

    async def __call__(
        self,
        scope: Scope,  # noqa: ARG002 - ASGI's signature
        receive: Receive,
        send: Send,
    ) -> None:
        """Send it."""
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        try:
            await attended(self._tell(send), _hung_up(receive))
        except _HungUp:
            return

    async def _tell(self, send: Send) -> None:
        body = connect.last(await self._failure(send))
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _failure(self, send: Send) -> ConnectError | None:
        """Send the answers; return why there are no more, unless they have come to their end."""
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit, aclosing(self._frames()) as frames:
                async for frame in frames:
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
        except TimeoutError:
            if not limit.expired():
                raise
            return too_late(self._timeout_s)
        except ConnectError as error:
            return error
        except RunnerError as error:
            if (known := told(error)) is not None:
                return known
            _log.error("request_failed", request=request_id(self._request), exc_info=error)
            return ConnectError(Code.INTERNAL, "internal error; see the API's log")
        return None

    async def _frames(self) -> AsyncGenerator[bytes, None]:
        """Yield each answer, and `alive` now and then while there is none."""
        pending: asyncio.Future[Answer | None] | None = None
        async with aclosing(self._answers) as answers:
            try:
                while True:
                    pending = pending or asyncio.ensure_future(anext(answers, None))
                    await asyncio.wait({pending}, timeout=self._every_s)
                    if not pending.done():
                        yield self._alive
                        continue
                    said, pending = pending.result(), None
                    if said is None:
                        return
                    yield connect.envelope(said)
            finally:
                if pending is not None:
                    pending.cancel()
                    await asyncio.wait({pending})


class _HungUp(Exception):
    """Nobody is left to be answered."""


async def _hung_up(receive: Receive) -> None:
    """Wait until the client has left, and raise then. Its message must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
    raise _HungUp


def _every_s(header: str | None) -> float:
    """Return how often a silent stream says that it is alive."""
    if header is None or not (header.isascii() and header.isdecimal() and len(header) <= 4):  # noqa: PLR2004 - digits
        return KEEPALIVE_S
    return min(max(int(header), 1), MOST_KEEPALIVE_S)
