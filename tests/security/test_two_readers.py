"""One input, one reading: the value that a check looks at is the value that is used afterwards."""

import ast
import contextlib
import importlib
import inspect
import json
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from itertools import islice
from urllib.parse import unquote

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, compile_path
from starlette.types import Scope

from runner import api
from runner.api.edge.bounds import READ_ONCE, HeadBounds, head_fault
from runner.api.edge.groups import group_of
from runner.api.edge.json import StrictJson
from runner.api.edge.routing import TEMPLATE, Routing, is_protected
from runner.api.middleware import BodyBounds
from runner.api.traffic.asked import ACCESS_TOKEN, HOP_BY_HOP, OURS_TO_SAY
from tests.support import wire
from tests.support.deployment import Deployment
from tests.support.headers_read import Unnamed, read_in
from tests.support.interfaces import hidden, routes_of, unserved
from tests.support.routes import UNKNOWN_ID, Operation, fetch

LISTS = {b"x-forwarded-for", b"accept"}
"""Headers that are read and may come in several lines: who reads them joins these."""
WRITTEN = {
    b"x-accel-buffering",
    b"etag",
    b"location",
    b"retry-after",
    b"set-cookie",
    b"vary",
    b"www-authenticate",
    b"x-next-token",
}
"""Headers that are only written."""
OF_PARTS = {b"content-disposition"}
"""Headers of the parts of a body, which are read one by one."""
DROPPED = (HOP_BY_HOP | OURS_TO_SAY) - {ACCESS_TOKEN}
"""Headers of requests to ports that the server inside does not get, whatever they say."""
IGNORED_TWICE = {b"traceparent"}
"""Headers of which two count as none: a trace must never fail a request (W3C Trace Context)."""
OF_OTHERS = {"runner.api.edge.bounds", "runner.api.traffic.answered"}
"""Modules about all headers, and about those that servers inside send."""
UNNAMED = {
    "runner.api.edge.rates": frozenset({"name"}),
    "runner.api.librechat.paths": frozenset({"(name := counted_header(headers))"}),
}
"""Expressions that name one header or another. Each of these is read by its own name elsewhere."""
HYPHENATED = re.compile(rb"[a-z]+(-[a-z]+)+")
ODD = (
    "%0A", "%0a", "%0D%0A", "%00", "%7F", "%1B", ";", ";a=b", "/", "//", "%2f", "%2F", "%5c", ".",
    "..", "/..", "/.", "%2e", "%2e%2e", "/%2e%2e/", "%252e", "%c0%ae", "%ff", "%u002e", "%20", "+",
    "?", "%3f", "%3F/v1/login", "%23", "#", "*", "%", "%zz", "%EF%BC%8F", "%E2%80%A8", "%C2%85",
)  # fmt: skip
BEFORE = ("/", "//", "/.", "/..", "/%2e", "/v1/..", "/healthz/..", "/%0A", "/%00", "http://x")
HOSTS = ("x/v1/login?", "x/healthz?", "x/operator/v1/", "x?", "x#", "x\\v1", "[::1", "a@b", "x:1:2")


def odd_paths(path: str) -> Iterator[str]:
    """Yield a path with odd bytes behind it, in front of it, and in it."""
    for odd in ODD:
        yield path + odd
        yield path.replace("/", odd, 1)
        head, _, tail = path.rpartition("/")
        yield f"{head}{odd}/{tail}"
        yield f"{head}/{odd}{tail}"
    for odd in BEFORE:
        yield odd + path
    yield path.upper()
    yield "".join(f"%{ord(each):02x}" for each in path)
    yield path.replace("/", "%2f")


def at(operation: Operation) -> str:
    """Return an operation's path with values for its parameters."""
    return re.sub(r"\{\w+\}", "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2", operation.path)


def headers_of(routes: Iterable[BaseRoute]) -> set[bytes]:
    """Return every header that a route takes as a parameter, whether it is documented or not."""
    return {
        parameter.alias.lower().encode()
        for route in routes
        if isinstance(route, APIRoute)
        for dependant in all_of(route.dependant)
        for parameter in dependant.header_params
    }


def all_of(dependant: Dependant) -> Iterator[Dependant]:
    """Yield what takes parameters of a request: a route, and all that it depends on."""
    yield dependant
    for each in dependant.dependencies:
        yield from all_of(each)


def test_every_header_that_is_read_is_read_once() -> None:
    """Every header that a route declares, or any line of the source asks for, is in the table."""
    read: set[bytes] = set()
    for found in pkgutil.walk_packages(api.__path__, f"{api.__name__}."):
        if found.name in OF_OTHERS:
            continue
        module = importlib.import_module(found.name)
        if isinstance(router := getattr(module, "router", None), APIRouter):
            read |= headers_of(router.routes)
        source = inspect.getsource(module)
        read |= read_in(source, vars(module), UNNAMED.get(found.name, frozenset()))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
                read |= {node.value} if HYPHENATED.fullmatch(node.value) else set()
    assert {b"idempotency-key", b"if-none-match", b"last-event-id", b"range"} < read
    assert {b"x-runner-tenant", b"x-csrf-token", b"traceparent", b"cookie", b"upgrade"} < read
    assert read - LISTS - WRITTEN - OF_PARTS - DROPPED - IGNORED_TWICE - READ_ONCE == set()


@pytest.mark.parametrize(
    "line",
    [
        'return request.headers.get("X-Odd")',
        'return request.headers.getlist("x-odd")[0]',
        'return request.headers["x-odd"]',
        'return "x-odd" not in request.headers',
        "return request.headers.get(ODD)",
        "return request.headers[ODD.upper()]",
        "return dict(scope['headers']).get(RAW)",
        "return RAW in (given := dict(scope['headers']))",
        "given = Headers(scope=scope); return given.get(ODD)",
        "return [value for name, value in scope['headers'] if name == RAW]",
        "return any(RAW == name for name, _ in raw)",
        "return any(name in {RAW} for name in raw)",
    ],
)
def test_a_header_that_is_read_in_any_way_is_found(line: str) -> None:
    """The control of the test above: by a text, by a constant, as bytes, in a loop."""
    source = f"def read(request: Request, scope: Scope, raw: list[Header]):\n    {line}"
    assert read_in(source, {"ODD": "x-odd", "RAW": b"x-odd"}) == {b"x-odd"}


@pytest.mark.parametrize(
    "line", ["return request.headers.get(name)", "self._given = request.headers"]
)
def test_a_header_that_cannot_be_found_is_an_error(line: str) -> None:
    """So nobody can read one past this test without being told."""
    source = f"def read(self, request: Request, name: str):\n    {line}"
    with pytest.raises(Unnamed):
        read_in(source, {})


@pytest.mark.parametrize("name", sorted(READ_ONCE), ids=bytes.decode)
def test_a_header_with_one_value_is_refused_twice_on_every_route(
    name: bytes, shared: Deployment
) -> None:
    """The answer is 400, whatever the values are, even for a key that may do everything."""
    key = shared.key("readers")
    given = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    for operation in fetch(shared.url):
        with wire.connected(shared.url) as connection:
            connection.sendall(wire.twice(name.decode(), operation.method, at(operation), given))
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400 "), operation.route
        assert b"content-type: application/problem+json\r\n" in answer


def test_a_body_of_two_lengths_is_refused(shared: Deployment) -> None:
    """A file would be charged by one length and read by the other (RFC 9112 6.1)."""
    key = shared.key("readers")
    request = wire.head(
        "PUT", "/v1/files/short", Authorization=f"Bearer {key}", Content_Length="1",
        Transfer_Encoding="chunked",
    )  # fmt: skip
    status, _, _ = wire.exchange(shared.url, request + b"5\r\nlong!\r\n0\r\n\r\n")
    assert status == HTTPStatus.BAD_REQUEST
    listed = httpx.get(f"{shared.url}/v1/files", headers={"Authorization": f"Bearer {key}"})
    assert listed.json()["items"] == []


TWICE = b'{"command": ["true"], "command": ["false"]}'
BODIES = {
    "a key twice": TWICE,
    "deep": b'{"command": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "UTF-16": json.dumps({"command": ["true"]}).encode("utf-16"),
}
TYPES = {
    "one": ["application/json"],
    "two, JSON last": ["text/plain", "application/json"],
    "two, JSON first": ["application/json", "text/plain"],
    "with a parameter": ["application/json; charset=utf-16"],
    "a list": ["text/plain, application/json"],
    "odd spaces": ["\tapplication/json\t"],
    "another JSON": ["application/problem+json"],
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("types", TYPES)
def test_no_content_type_gets_a_body_past_its_check(
    types: str, body: str, shared: Deployment
) -> None:
    """It is refused before a parser sees it, whatever type it claims to have."""
    lines = ["POST /v1/executions HTTP/1.1", "Host: x", f"Content-Length: {len(BODIES[body])}"]
    lines += [f"Authorization: Bearer {shared.key('readers')}"]
    lines += [f"Content-Type: {each}" for each in TYPES[types]]
    status, _, answer = wire.exchange(
        shared.url, "\r\n".join([*lines, "", ""]).encode() + BODIES[body]
    )
    assert status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE}, answer


@pytest.mark.parametrize("once", [True, False], ids=["refused", "let through"])
async def test_without_the_check_two_types_are_two_readings(once: bool) -> None:
    """Shown able to fail: one reader uses the first `Content-Type`, another the last."""
    app = FastAPI()
    app.add_middleware(StrictJson)
    app.add_middleware(BodyBounds, max_bytes=2**20, max_streamed_bytes=0)
    app.add_middleware(Routing, routes=app.routes)
    if once:
        app.add_middleware(HeadBounds)

    @app.post("/")
    async def first(request: Request) -> str:
        return request.headers["content-type"]

    types = [("Content-Type", "text/plain"), ("Content-Type", "application/json")]
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/", content=b"{}", headers=types)
    assert (answer.status_code, answer.json() if not once else None) == (
        (400, None) if once else (200, "text/plain")
    )


async def routed(app: FastAPI, scope: Scope) -> str:
    """Return the template to which the router itself matches a request; "" for none."""

    async def stop(*_: object) -> None:
        raise Stopped

    scope = {**scope, "app": app}
    # The router chooses a route before the endpoint fails for want of parts.
    with contextlib.suppress(Exception):
        await app.router(scope, stop, stop)  # type: ignore[arg-type]
    return getattr(scope.get("route"), "path", "")


class Stopped(Exception):
    """The router has chosen."""


@pytest.mark.parametrize(
    ("every", "least_tried", "least_agreed"),
    [
        pytest.param(7, 50_000 // 7, 5000 // 7, id="every seventh"),
        pytest.param(1, 50_000, 5000, id="all", marks=pytest.mark.matrix),
    ],
)
async def test_group_permission_and_router_agree_on_every_odd_path(
    every: int, least_tried: int, least_agreed: int
) -> None:
    """Every route by every method, with odd bytes in every place: refused, or all read it alike.

    Those of E2B, LibreChat, SandboxFusion and MCP are among them. A sample has a part of the odd
    paths of each route, another one than of the route before.
    """
    app = unserved()
    tried = agreed = 0
    made = Routing(app, routes_of(app))
    templates: dict[str, set[str]] = defaultdict(set)
    for route in routes_of(app):
        templates[route.path] |= set(route.methods or ())
    theirs = {each.template for each in hidden(app)}
    assert theirs < set(templates)
    for number, (template, methods) in enumerate(templates.items()):
        path = re.sub(r"\{\w+(:\w+)?\}", UNKNOWN_ID, template)
        for odd in islice(odd_paths(path), number % every, None, every):
            raw, _, query = odd.partition("?")
            for method in sorted({*methods, "GET", "POST"}):
                scope: Scope = {
                    "type": "http", "method": method, "path": unquote(raw), "root_path": "",
                    "raw_path": raw.encode(), "query_string": query.encode(), "headers": [],
                }  # fmt: skip
                tried += 1
                if head_fault(scope) is not None:
                    continue
                truth = await routed(app, scope)
                seen = made.template(method, scope["path"])
                assert seen == truth or not truth, (method, odd)
                assert group_of(method, seen) is group_of(method, truth or seen)
                if truth.startswith(("/v1/", "/operator/v1/")) or truth in theirs:
                    assert is_protected({**scope, TEMPLATE: seen}), odd
                agreed += bool(truth)
    assert tried > least_tried
    assert agreed > least_agreed


def test_a_pattern_on_the_path_would_disagree() -> None:
    """Shown able to fail: the check that was there before, and how the router reads `%0A`."""
    path = unquote("/v1/executions%0A")
    template, _, _ = compile_path("/v1/executions")
    assert template.match(path)
    assert not re.fullmatch(r"/v1/executions", path)


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_decides_nothing_about_the_path(host: str, shared: Deployment) -> None:
    """A stranger with a path in their `Host` is still a stranger, and their body is not read."""
    lines = [
        "POST /v1/executions HTTP/1.1", f"Host: {host}", "Content-Type: application/json",
        "Content-Length: 1000000", "Connection: close",
    ]  # fmt: skip
    status, _, _ = wire.exchange(shared.url, "\r\n".join([*lines, "", ""]).encode())
    assert status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.BAD_REQUEST}
