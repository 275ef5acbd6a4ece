"""How long a connection may be idle: longer for E2B's clients, if it counts in a tenant's share."""

import asyncio
import socket

import uvicorn
from starlette.types import Receive, Scope, Send

from runner.api.edge.connection import Patience, connections
from runner.api.edge.shares import PLACE, Place, Share

IDLE_S = 1
"""As uvicorn is told: for connections of all others."""


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, as a route does for a caller with a key or, without one, as for a stranger."""
    if b"held" in scope["query_string"]:
        place: Place = scope[PLACE]
        assert place.held_by(("tenant", "key"), Share(100))
    await receive()
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


async def asked(target: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask once on a new connection, which then is idle."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await again(target, reader, writer)
    return reader, writer


async def again(target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask on this connection, and read the answer."""
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert await reader.readexactly(2) == b"ok"


async def test_only_a_tenants_connection_to_e2bs_interface_stays() -> None:
    """The others are closed; when they are, it still answers."""
    server = uvicorn.Server(
        uvicorn.Config(
            answering,
            http=connections(Patience(client_s=60, connections=100)),
            lifespan="off",
            log_config=None,
            timeout_keep_alive=IDLE_S,
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stays = await asked("/v2/sandboxes?held", port)
        signed = "/files?signature=v1_x&held"
        for target in ("/v1/sandboxes?held", signed, "/v2/sandboxes", "/healthz"):
            reader, writer = await asked(target, port)
            async with asyncio.timeout(30):
                assert await reader.read() == b"", target
            writer.close()
        await again("/v2/sandboxes?held", *stays)
        stays[1].close()
        server.should_exit = True
        await serving
