"""Serves the application with uvicorn, on a port or on an inherited socket."""

import socket

import uvicorn
from fastapi import FastAPI

from runner.api.edge.bounds import MAX_HEADER_BYTES
from runner.api.edge.connection import Patience, connections
from runner.api.edge.upgraded import MAX_MESSAGE_BYTES
from runner.api.traffic.destination import PortAddresses
from runner.base.listening import listen
from runner.base.settings import Settings

KEEP_ALIVE_S = 30
GRACE_S = 5


async def serve(app: FastAPI, settings: Settings, *, fd: int | None = None) -> None:
    """Serve until SIGINT or SIGTERM; then open streams get a few seconds to end.

    Raises SetupError if it cannot listen at the configured address.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            # httptools accepts a request head without end; h11 refuses it at a limit.
            http=connections(
                Patience(settings.client_timeout_s, settings.max_connections),
                PortAddresses(settings.ports_domain).is_name,
            ),
            # Only for routes that have a WebSocket: the connection hands over no other request.
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            # A small compressed message of a stranger would cost as much to unpack as a large one.
            ws_per_message_deflate=False,
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=True,
            # The operator says which proxies to trust; headers alone prove nothing.
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
    )
    with listen(settings) if fd is None else socket.socket(fileno=fd) as listener:
        listener.setblocking(False)  # noqa: FBT003 - the socket module's own signature
        await server.serve(sockets=[listener])
