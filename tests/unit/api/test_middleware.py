"""Every route has labels, a last resort for errors, and limits of bodies around it."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from runner.api import problems
from runner.api.cursors import decode_id, decode_seq
from runner.api.edge.headers import SecurityHeaders
from runner.api.edge.routing import Routing
from runner.api.middleware import BodyBounds, LastResort, RequestId

INSIDE = "the inside of the service"


def application() -> FastAPI:
    """Return an app whose routes fail, inside the real middleware."""
    app = FastAPI()
    problems.install(app)
    app.add_middleware(
        BodyBounds,
        max_bytes=10,
        max_streamed_bytes=20,
        declared=frozenset({("PUT", "/stores")}),
    )
    streamed = frozenset({("PUT", "/stores"), ("PUT", "/passes")})
    app.add_middleware(Routing, routes=app.routes, streamed=streamed)
    app.add_middleware(LastResort)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestId)

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError(INSIDE)

    @app.get("/breaks")
    async def breaks() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"begun"
            raise RuntimeError(INSIDE)

        return StreamingResponse(body())

    @app.get("/cursors")
    async def cursors(cursor: str) -> None:
        decode_seq(cursor)
        decode_id(cursor)

    @app.post("/takes")
    @app.put("/stores")
    @app.put("/passes")
    async def takes(request: Request) -> int:
        return len(await request.body())

    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the failing app."""
    transport = httpx.ASGITransport(app=application())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


async def test_what_nobody_foresaw_is_a_problem_like_any_other(client: httpx.AsyncClient) -> None:
    """The answer is 500 with the request's id and the usual headers, and reveals nothing."""
    answer = await client.get("/fails", headers={"X-Request-ID": "chosen-by-client"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == "chosen-by-client"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["instance"] == "urn:runner:request:chosen-by-client"
    assert INSIDE not in answer.text


async def test_an_answer_that_breaks_off_is_not_made_to_look_whole(
    client: httpx.AsyncClient,
) -> None:
    """An answer that has begun is cut off, so that the client notices."""
    with pytest.raises(RuntimeError):
        await client.get("/breaks")


@pytest.mark.parametrize("offered", ["short", "x" * 65, "with space", "new\u00e9", "a" * 8 + "\t"])
async def test_a_request_id_of_another_form_is_replaced(
    offered: str, client: httpx.AsyncClient
) -> None:
    """A request id goes into logs and headers, so it must have one strict form."""
    answer = await client.get("/fails", headers={"X-Request-ID": offered.encode("latin-1")})  # type: ignore[arg-type]
    assert answer.headers["x-request-id"] != offered
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize("kind", ["text/plain", "", "application/jsonx", "application/xml"])
async def test_a_body_of_another_type_is_refused(kind: str, client: httpx.AsyncClient) -> None:
    """It is refused with 415, so a browser's form, for example, cannot submit anything."""
    answer = await client.post("/takes", content=b"{}", headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert answer.json()["type"] == "urn:runner:problem:unsupported-media-type"


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
async def test_json_is_let_through(kind: str, client: httpx.AsyncClient) -> None:
    """Every spelling of the type is accepted."""
    answer = await client.post("/takes", content=b"{}", headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()) == (200, 2)


async def test_no_body_needs_no_type(client: httpx.AsyncClient) -> None:
    """A cancellation, for example, has no body."""
    assert (await client.post("/takes")).json() == 0


async def test_a_body_is_counted_while_it_is_read(client: httpx.AsyncClient) -> None:
    """It is refused with 413 by its declared length, or as soon as too much has come."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"12345"

    for content in (b"x" * 11, pieces()):
        answer = await client.post(
            "/takes", content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 413
        assert answer.json()["type"] == "urn:runner:problem:content-too-large"


async def test_a_route_that_stores_wants_the_length_of_what_it_streams(
    client: httpx.AsyncClient,
) -> None:
    """It is refused with 411 where space is reserved; other streams need no length."""

    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"12345"

    answer = await client.put("/stores", content=pieces(1))
    assert (answer.status_code, answer.json()["title"]) == (411, "Length Required")
    assert (await client.put("/stores", content=b"12345")).status_code == 200
    answer = await client.put("/passes", content=pieces(3))
    assert (answer.status_code, answer.json()) == (200, 15)
    assert (await client.put("/passes", content=pieces(5))).status_code == 413


@pytest.mark.parametrize(
    "cursor", ["!", "MQ\u00e9", "\0", "LTE", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "_w"]
)
async def test_a_cursor_of_another_make_is_the_requests_fault(
    cursor: str, client: httpx.AsyncClient
) -> None:
    """The error names the query parameter."""
    answer = await client.get("/cursors", params={"cursor": cursor})
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:runner:problem:invalid-request"
    assert answer.json()["errors"][0]["field"] == "query.cursor"
