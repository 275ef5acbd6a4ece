"""JSON is checked before a parser sees it: depth, size and meaning, in linear time."""

import time

import httpx
import pytest
from fastapi import FastAPI, Request

from runner.api.edge.json import MAX_DEPTH, MAX_ELEMENTS, MAX_NUMBER, NotStrict, StrictJson, read
from runner.api.edge.routing import Routing
from runner.api.middleware import BodyBounds

GOOD = {
    "an object": b'{"a": [1, -2.5e3, true, null, "\\u00fc\\""]}',
    "nesting at the bound": b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
    "brackets in strings": b'"' + b"[" * 1000 + b'"',
    "an escaped quote before brackets": b'"\\"' + b"[" * 1000 + b'"',
    "one name in two objects": b'[{"a": 1}, {"a": 2}]',
    "a number at the bound": b"1" * MAX_NUMBER,
    "a number alone": b"0",
}
BAD = {
    "deeper": (b"[" * (MAX_DEPTH + 1), "deeper"),
    "deeper behind a string": (b'["\\\\", ' + b"[" * MAX_DEPTH, "deeper"),
    "objects, too": (b'{"a":' * (MAX_DEPTH + 1), "deeper"),
    "many elements": (b"[" + b"1," * MAX_ELEMENTS + b"1]", "more than"),
    "many strings": (b"[" + b'"",' * MAX_ELEMENTS + b'""]', "more than"),
    "a key twice": (b'{"tenant": 1, "tenant": 2}', "twice"),
    "a key twice, spelled otherwise": (b'{"a": 1, "\\u0061": 2}', "twice"),
    "not a number": (b"[NaN]", "NaN"),
    "infinity": (b"-Infinity", "-Infinity"),
    "a long integer": (b"1" * (MAX_NUMBER + 1), "number"),
    "a long fraction": (b"0." + b"1" * MAX_NUMBER, "number"),
    "UTF-16": ('{"a": 1}'.encode("utf-16-le"), "NUL"),
    "UTF-32": ('{"a": 1}'.encode("utf-32-be"), "NUL"),
    "a byte-order mark": (b"\xef\xbb\xbf{}", "decode error"),
    "Latin-1": (b'"\xfc"', "UTF-8"),
    "cut off": (b'{"a": "', "decode error"),
    "two values": (b"{}{}", "decode error"),
}


@pytest.mark.parametrize("name", GOOD)
def test_strict_json_passes(name: str) -> None:
    read(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_everything_else_is_refused_in_words(name: str) -> None:
    body, words = BAD[name]
    with pytest.raises(NotStrict, match=words):
        read(body)


@pytest.mark.parametrize(
    "piece", [b"[", b'"', b'\\"', b'"",', b"1,", b"1", b'"\\', b"{}", b"\\"], ids=repr
)
def test_a_body_made_to_be_slow_is_not(piece: bytes) -> None:
    """Each body has four MiB: no pattern makes the scan look at a byte twice."""
    body = b'["' + piece * (4 * 2**20 // len(piece))
    began = time.process_time()
    with pytest.raises(NotStrict):
        read(body)
    assert time.process_time() - began < 1.0


def application(*, strict: bool) -> FastAPI:
    """Return an app that returns what it parsed, with the check or without it."""
    app = FastAPI()
    if strict:
        app.add_middleware(StrictJson)
        app.add_middleware(BodyBounds, max_bytes=2**20, max_streamed_bytes=0)
        app.add_middleware(Routing, routes=app.routes)

    @app.post("/")
    async def parsed(request: Request) -> str:
        return repr(await request.json())

    return app


async def post(app: FastAPI, body: bytes) -> httpx.Response:
    """Send a JSON body."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post("/", content=body, headers={"Content-Type": "application/json"})


async def test_without_the_check_the_last_of_two_keys_wins() -> None:
    """The control: without the check, two readers of one body may see different requests."""
    body = b'{"tenant": 1, "tenant": 2}'
    assert (await post(application(strict=False), body)).json() == "{'tenant': 2}"
    refused = await post(application(strict=True), body)
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["errors"] == [
        {"field": "body", "message": "must not hold a key twice in one object"}
    ]


async def test_a_good_body_reaches_its_route_unchanged() -> None:
    answer = await post(application(strict=True), GOOD["an object"])
    assert answer.json() == "{'a': [1, -2500.0, True, None, 'ü\"']}"
