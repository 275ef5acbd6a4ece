"""How slowly a body may arrive while a route waits for it."""

import asyncio
from http import HTTPStatus

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.edge.routing import TEMPLATE
from runner.api.problems import problem

LEAST_BYTES_PER_S = 1024
PATIENT = frozenset({"/process.Process/StreamInput"})
"""Routes whose bodies come as somebody types: like a WebSocket, each holds a place of its caller's
share of streams, and ends with its caller's right."""


class Pace:
    """Cuts off a body that pauses too long, or takes longer than `LEAST_BYTES_PER_S` allows.

    Only time spent waiting for the client counts, and not the time that a route takes for what has
    arrived.
    """

    def __init__(self, app: ASGIApp, client_s: float) -> None:
        self._app = app
        self._client_s = client_s

    async def __call__(  # noqa: C901 - one pass over one request, with its two wrappers
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope[TEMPLATE] in PATIENT:
            await self._app(scope, receive, send)
            return
        clock = asyncio.get_running_loop().time
        waited, received = 0.0, 0
        whole = late = answered = False

        async def paced() -> Message:
            nonlocal waited, received, whole, late
            if whole:
                return await receive()
            left = self._client_s + received / LEAST_BYTES_PER_S - waited
            began = clock()
            try:
                async with asyncio.timeout(max(0.0, min(self._client_s, left))):
                    message = await receive()
            except TimeoutError:
                late = whole = True
                # The app sees its client leave; the answer that it then makes is replaced below.
                return {"type": "http.disconnect"}
            waited += clock() - began
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            return message

        async def replaced(message: Message) -> None:
            nonlocal answered
            if not late:
                answered = answered or message["type"] == "http.response.start"
                await send(message)
            elif answered:
                # The server sees an incomplete answer, and cuts the connection.
                raise ClientDisconnect

        try:
            await self._app(scope, paced, replaced)
        except ClientDisconnect:
            if not late or answered:
                raise
        if late and not answered:
            refusal = problem(
                Request(scope),
                HTTPStatus.REQUEST_TIMEOUT,
                f"the body paused for {self._client_s:g} s, or came more slowly than "
                f"{LEAST_BYTES_PER_S} bytes a second",
                headers={"Connection": "close"},
            )
            await refusal(scope, receive, send)
