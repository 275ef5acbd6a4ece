"""Checks that a body is strict JSON before a parser sees it (RFC 8259, and I-JSON, RFC 7493)."""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.edge.rates import CHARGE
from runner.api.edge.routing import BODY, Body, declared_length
from runner.api.edge.shares import Hold, Holder, Share, holder_of, too_many
from runner.api.problems import INVALID, FieldProblem, problem
from runner.words.json import RepeatedKey, read_json

Made = TypeVar("Made")

MAX_DEPTH = 64
MAX_ELEMENTS = 100_000
MAX_NUMBER = 64
"""Characters of a number: more than any double or 128-bit integer needs."""

LARGE = 16 * 1024
"""A body with more bytes than this is read by a thread, and charged to its tenant's share."""
AT_ONCE = 32
"""Memory for all large bodies together, as a number of bodies of the largest size."""

WITHIN_S = 10.0
"""Seconds that a large body waits, unread, for memory in its tenant's share."""

VALUE = "runner.json"
"""Key in the ASGI scope: the value of the checked body, which the route gets."""

ASIDE = "runner.aside"
"""Key in the ASGI scope: runs further work on a body in the place where it was read."""

# Each call looks at a quarter of a MiB at most, because a reading thread keeps the loop waiting for
# one call. No byte is looked at twice.
_PIECE = 256 * 1024
_STRUCTURE = re.compile(rb'["\[\]{},]')
_IN_STRING = re.compile(rb'(?:[^"\\]{1,4096}+|\\.){1,64}+', re.DOTALL)


class NotStrict(ValueError):
    """A body is not JSON, is too large, or is JSON that parsers read differently."""


def read(body: bytes) -> Any:
    """Return the value of a body that is strict JSON. Raises NotStrict for any other.

    Depth and elements are counted in the raw bytes, before any value is built.
    """
    # `json` would take a body with NULs as UTF-16 or UTF-32, which RFC 8259 8.1 rules out.
    if b"\0" in body:
        raise NotStrict("must be UTF-8 without NUL")
    _require_small(body)
    try:
        return read_json(
            body.decode(),
            parse_constant=_no_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except UnicodeDecodeError:
        raise NotStrict("must be UTF-8") from None
    except RepeatedKey:
        raise NotStrict("must not hold a key twice in one object") from None
    except json.JSONDecodeError as error:
        raise NotStrict(f"JSON decode error: {error.msg} at {error.pos}") from None


def _require_small(body: bytes) -> None:
    at = depth = elements = 0
    while at < len(body):
        token = _STRUCTURE.search(body, at, at + _PIECE)
        if token is None:
            at += _PIECE
            continue
        at = token.end()
        elements += 1
        match token[0]:
            case b"[" | b"{":
                depth += 1
            case b"]" | b"}":
                depth -= 1
            case b'"':
                while inside := _IN_STRING.match(body, at):
                    at = inside.end()
                at += 1
        if depth > MAX_DEPTH:
            raise NotStrict(f"must not be nested deeper than {MAX_DEPTH}")
        if elements > MAX_ELEMENTS:
            raise NotStrict(f"must not hold more than {MAX_ELEMENTS} strings, brackets and commas")


class JsonRoute(APIRoute):
    """A route that gets the checked value, so that its body is not parsed again."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, with a request that knows its JSON."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_Checked(request.scope, request.receive))

        return handle


class _Checked(Request):
    async def json(self) -> Any:
        """Return the value that `StrictJson` read."""
        return self.scope[VALUE]


async def aside(scope: Scope, work: Callable[[], Made]) -> Made:
    """Do work on a request's JSON, in a thread if the JSON is large."""
    made: Made = await scope[ASIDE](work)
    return made


class StrictJson:
    """Reads a whole JSON body, refuses it unless it is strict, and hands it on.

    One thread reads large bodies: a tenant's one after the other, and tenants in turn. Until it is
    answered, a large body uses its tenant's share of memory: its declared or its received length.
    """

    def __init__(self, app: ASGIApp, max_bytes: int = 2**24, *, within_s: float = WITHIN_S) -> None:
        self._app = app
        self._within_s = within_s
        self._memory = Share(AT_ONCE * max_bytes)
        self._reader = ThreadPoolExecutor(1, "json")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope[BODY] is not Body.JSON:
            await self._app(scope, receive, send)
            return
        holder = holder_of(scope)
        if holder is None:
            await self._serve(scope, receive, send, None)
            return
        hold = Hold(self._memory, holder)
        try:
            await self._serve(scope, receive, send, hold)
        except _AboveShare:
            await too_many(scope, self._memory, "bytes of large bodies")(scope, receive, send)
        finally:
            hold.give_back()

    async def _serve(self, scope: Scope, receive: Receive, send: Send, hold: Hold | None) -> None:
        body = await _whole(receive, declared_length(scope) or 0, hold, self._within_s)
        if body is None:
            return
        if CHARGE in scope and (refusal := await scope[CHARGE](len(body))) is not None:
            await refusal(scope, receive, send)
            return
        if body:
            scope[ASIDE] = partial(self._aside, len(body), holder_of(scope))
            try:
                scope[VALUE] = await aside(scope, partial(read, body))
            except NotStrict as error:
                await _refusal(scope, error)(scope, receive, send)
                return
        handed = False

        async def again() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    async def _aside(self, size: int, holder: Holder | None, work: Callable[[], Any]) -> Any:
        if size <= LARGE:
            return work()
        tenant = holder[0] if holder else ""
        async with self._turns.setdefault(tenant, asyncio.Lock()):
            return await asyncio.get_running_loop().run_in_executor(self._reader, work)


class _AboveShare(Exception):
    """A body needs more memory than its tenant's share has left."""


async def _whole(
    receive: Receive, declared: int, hold: Hold | None, within_s: float
) -> bytes | None:
    """Return the body, or None if the client left before its end. Raises _AboveShare."""
    body = bytearray()
    more = True
    while True:
        size = max(declared, len(body))
        if hold is not None and size > LARGE and not await hold.grow(size, within_s):
            raise _AboveShare
        if not more:
            return bytes(body)
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)


def _refusal(scope: Scope, error: NotStrict) -> JSONResponse:
    return problem(
        Request(scope),
        HTTPStatus.BAD_REQUEST,
        f"the body {error}",
        kind=INVALID,
        fields=[FieldProblem(field="body", message=str(error))],
    )


def _no_constant(name: str) -> None:
    raise NotStrict(f"must not hold {name}")


def _int(number: str) -> int:
    return int(_short(number))


def _float(number: str) -> float:
    return float(_short(number))


def _short(number: str) -> str:
    if len(number) > MAX_NUMBER:
        raise NotStrict(f"must not hold a number of more than {MAX_NUMBER} characters")
    return number
