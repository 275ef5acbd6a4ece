"""What JSON may look like before a parser sees it (RFC 8259, and I-JSON, RFC 7493)."""

import json
import re
from http import HTTPStatus
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.middleware import BODY, Body
from runner.api.problems import INVALID, FieldProblem, problem

MAX_DEPTH = 64
MAX_ELEMENTS = 100_000
MAX_NUMBER = 64
"""Characters: more than any double or 128-bit integer needs."""

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
"""A string, which at worst goes on to the end, so that no byte is looked at twice; or structure."""


class NotStrict(ValueError):
    """A body is not JSON, or JSON that different parsers read differently, or too much of it."""


def check(body: bytes) -> None:
    """Refuse a body that is not strict JSON. Raises NotStrict.

    Depth and elements are counted in the raw bytes, before anything is built of them.
    """
    # `json` would take a body with NULs for UTF-16 or UTF-32, which RFC 8259 8.1 rules out.
    if b"\0" in body:
        raise NotStrict("must be UTF-8 without NUL")
    depth = 0
    for elements, token in enumerate(_TOKEN.finditer(body), 1):
        match token[0]:
            case b"[" | b"{":
                depth += 1
            case b"]" | b"}":
                depth -= 1
        if depth > MAX_DEPTH:
            raise NotStrict(f"must not be nested deeper than {MAX_DEPTH}")
        if elements > MAX_ELEMENTS:
            raise NotStrict(f"must not hold more than {MAX_ELEMENTS} strings, brackets and commas")
    try:
        json.loads(
            body.decode(),
            object_pairs_hook=_distinct,
            parse_constant=_no_constant,
            parse_float=_short,
            parse_int=_short,
        )
    except UnicodeDecodeError:
        raise NotStrict("must be UTF-8") from None
    except json.JSONDecodeError as error:
        raise NotStrict(f"JSON decode error: {error.msg} at {error.pos}") from None


class StrictJson:
    """Reads a JSON body whole and refuses it unless it is strict, then hands it on.

    Not where a route streams: a file is bytes, whatever it says that it is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope[BODY] is not Body.JSON:
            await self._app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        whole = bytes(body)
        del body
        if whole:
            try:
                check(whole)
            except NotStrict as error:
                fields = [FieldProblem(field="body", message=str(error))]
                refusal = problem(
                    Request(scope),
                    HTTPStatus.BAD_REQUEST,
                    f"the body {error}",
                    kind=INVALID,
                    fields=fields,
                )
                await refusal(scope, receive, send)
                return
        handed = False

        async def again() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": whole, "more_body": False}

        await self._app(scope, again, send)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise NotStrict("must not hold a key twice in one object")
    return made


def _no_constant(name: str) -> None:
    raise NotStrict(f"must not hold {name}")


def _short(number: str) -> None:
    if len(number) > MAX_NUMBER:
        raise NotStrict(f"must not hold a number of more than {MAX_NUMBER} characters")
