"""`/v1/sandboxes/{id}/tcp/{port}`: a TCP connection to a port of a sandbox, by WebSocket."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from starlette.types import Receive, Scope, Send

from runner.api.deps import CanUseSandboxes, Parts, PortNumber, SandboxId
from runner.api.edge.json import JsonRoute
from runner.api.edge.sockets import Socket, WentAway
from runner.api.problems import LIVING, closing, responses
from runner.api.terminals import NORMAL, UNINTELLIGIBLE, offered
from runner.api.traffic.proxy import dialled
from runner.base.tasks import attended
from runner.door.streams import PortStream
from runner.words.errors import RunnerError

FINISH = "finish"

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}/tcp", tags=["ports"], route_class=JsonRoute)


async def connected(
    caller: CanUseSandboxes, sandbox_id: SandboxId, port: PortNumber, parts: Parts
) -> AsyncIterator[PortStream]:
    """Connect before the WebSocket opens: afterwards, it is too late to refuse with a status."""
    async with dialled(parts.using, caller, sandbox_id, port) as stream:
        yield stream


@router.get(
    "/{port}",
    summary="Connect to a port",
    response_class=Response,
    status_code=HTTPStatus.SWITCHING_PROTOCOLS,
    responses={
        101: {"description": "A WebSocket is open."},
        **LIVING,
        **responses(HTTPStatus.UPGRADE_REQUIRED, HTTPStatus.BAD_GATEWAY),
    },
)
async def connect(
    stream: Annotated[PortStream, Depends(connected)],
    # After `stream`: so a plain request, too, gets 404 for another tenant's sandbox.
    socket: Annotated[Socket, Depends(offered)],
) -> Response:
    """Carry a TCP connection to a port of the sandbox's loopback, by WebSocket.

    Binary messages are the bytes, both ways. The text message `finish` says that no more bytes
    follow in its direction. The close code is 1000 once both ends have finished, and otherwise 4000
    plus the status of the failure.
    """
    return TcpTalk(socket, stream)


class TcpTalk(Response):
    """The answer that opens a WebSocket, and lasts as long as the connection."""

    def __init__(self, socket: Socket, stream: PortStream) -> None:
        super().__init__(status_code=HTTPStatus.SWITCHING_PROTOCOLS)
        self._socket = socket
        self._stream = stream

    async def __call__(
        self,
        scope: Scope,  # noqa: ARG002 - ASGI's signature
        receive: Receive,  # noqa: ARG002
        send: Send,
    ) -> None:
        """Carry bytes until both directions have ended, or one of the two ends leaves."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": []})
        try:
            await attended(self._outward(), self._inward())
        except WentAway:
            return
        except RunnerError as error:
            await self._socket.close(*closing(error))
        else:
            await self._socket.close(NORMAL, "the connection has ended")

    async def _outward(self) -> None:
        while data := await self._stream.receive():
            await self._socket.tell(data)
        await self._socket.tell(FINISH)

    async def _inward(self) -> None:
        while True:
            match await self._socket.hear():
                case bytes(data):
                    await self._stream.send(data)
                case said if said == FINISH:
                    await self._stream.finish()
                case _:
                    why = f"a text message must be `{FINISH}`"
                    await self._socket.close(UNINTELLIGIBLE, why)
                    raise WentAway
