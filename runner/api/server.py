"""Serving the application with uvicorn, on a port or on a socket that was handed over."""

import socket

import uvicorn
from fastapi import FastAPI

from runner.api.edge.bounds import MAX_HEADER_BYTES
from runner.api.edge.connection import Patience, connections
from runner.base.listening import listen
from runner.base.settings import Settings

KEEP_ALIVE_S = 30
GRACE_S = 5


async def serve(app: FastAPI, settings: Settings, *, fd: int | None = None) -> None:
    """Serve until SIGINT or SIGTERM; open streams get a few seconds to end.

    Raises SetupError when it may not listen where the settings say.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            # httptools takes a request head without an end; h11 refuses it at a bound.
            http=connections(Patience(settings.client_timeout_s, settings.max_connections)),
            ws="none",
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=True,
            # Who is behind a proxy is the operator's to say; headers alone prove nothing.
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
    )
    with listen(settings) if fd is None else socket.socket(fileno=fd) as listener:
        listener.setblocking(False)  # noqa: FBT003 - the socket module's own signature
        await server.serve(sockets=[listener])
