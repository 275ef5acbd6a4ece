"""A client that sends a large body hears why it was refused, also if it asked us to hang up."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from runner.api.edge.connection import Patience, connections
from runner.api.edge.lingering import Lingering

LARGE = 8 * 2**20
"""Bytes of a body: more than the buffers between both ends hold."""
FORBIDDEN = b"HTTP/1.1 403"


async def refusing(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Refuse every request without reading its body."""
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": b"no"})


@asynccontextmanager
async def serving(client_s: float) -> AsyncIterator[int]:
    """Run a server that gives clients so much time; yield its port."""
    server = uvicorn.Server(
        uvicorn.Config(
            refusing,
            http=connections(Patience(client_s=client_s, connections=100)),
            lifespan="off",
            log_config=None,
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await running


HEAD = (
    f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {LARGE}\r\n\r\n".encode()
)


async def heard(port: int) -> bytes:
    """Send a whole body slowly, as a client does that reads only then; return what it hears."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with suppress(ConnectionError):
            writer.write(HEAD)
            for _ in range(LARGE // 2**18):
                writer.write(bytes(2**18))
                await writer.drain()
                await asyncio.sleep(0.005)
            return await reader.read()
        return b""
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize("lingers", [True, False])
async def test_a_refusal_is_heard_by_who_is_still_sending(
    monkeypatch: pytest.MonkeyPatch, *, lingers: bool
) -> None:
    """The control: a server that just closes resets the connection."""
    if not lingers:
        monkeypatch.setattr(Lingering, "close", Lingering.hang_up)
    async with serving(client_s=60) as port, asyncio.timeout(60):
        assert (await heard(port)).startswith(FORBIDDEN) is lingers


async def sending_on(writer: asyncio.StreamWriter) -> None:
    """Send a body without end."""
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def test_who_never_ends_its_body_is_hung_up_on() -> None:
    """Its answer ends at once; its own direction is closed when the client's time is over."""
    async with serving(client_s=0.5) as port, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD)
        assert (await reader.read()).startswith(FORBIDDEN)
        with pytest.raises(ConnectionError):
            await sending_on(writer)
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_a_server_that_stops_waits_for_none_of_them() -> None:
    async with asyncio.timeout(60):
        async with serving(client_s=600) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD)
            assert (await reader.read()).startswith(FORBIDDEN)
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_a_request_without_a_body_is_answered_and_hung_up_on() -> None:
    """There is nothing to wait for."""
    async with serving(client_s=60) as port, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(FORBIDDEN)
        writer.close()
        await writer.wait_closed()
