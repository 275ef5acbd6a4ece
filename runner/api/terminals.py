"""`/v1/sandboxes/{id}/processes/{n}/terminal`: a process's terminal, by WebSocket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from runner.api.deps import CanUseSandboxes, Parts, ProcessNumber, SandboxId
from runner.api.edge.json import JsonRoute, NotStrict, read
from runner.api.edge.sockets import SOCKET, Socket, WentAway
from runner.api.problems import LIVING, Answered, closing, problem, responses
from runner.api.processes import MAX_OFFSET
from runner.api.terminal_messages import ExitMessage, GapMessage, ResizeMessage
from runner.door.streams import ProcessStream
from runner.words.errors import Conflict, NodeAway, RunnerError
from runner.words.living import OutputGap, TerminalSize

NORMAL = 1000
UNINTELLIGIBLE = 4000 + HTTPStatus.BAD_REQUEST
MAX_TEXT = 1024
RESIZE_EVERY_S = 0.05
"""A window that is being dragged has many sizes, of which only the last counts."""
NOT_A_HANDSHAKE = (
    "this path is for WebSockets: send a handshake of version 13 without a body and without "
    "subprotocols"
)

router = APIRouter(
    prefix="/v1/sandboxes/{sandbox_id}/processes", tags=["processes"], route_class=JsonRoute
)


async def offered(request: Request) -> Socket:
    """Return the WebSocket that a request wants to open. Answers 426 if it wants none."""
    socket = request.scope.get(SOCKET)
    if not isinstance(socket, Socket):
        raise Answered(
            problem(
                request,
                HTTPStatus.UPGRADE_REQUIRED,
                NOT_A_HANDSHAKE,
                headers={"Upgrade": "websocket", "Connection": "Upgrade"},
            )
        )
    return socket


async def attached(
    caller: CanUseSandboxes,
    sandbox_id: SandboxId,
    process: ProcessNumber,
    parts: Parts,
    offset: Annotated[
        int, Query(ge=0, le=MAX_OFFSET, description="From which byte of its output on.")
    ] = 0,
) -> AsyncIterator[ProcessStream]:
    """Attach before the WebSocket opens: afterwards, it is too late to refuse with a status."""
    async with parts.using.attach(caller, sandbox_id, process, offset=offset, wakes=True) as stream:
        if not stream.process.terminal:
            raise Conflict("this process has no terminal: start it with `terminal`")
        yield stream


@router.get(
    "/{process}/terminal",
    summary="Open a process's terminal",
    response_class=Response,
    status_code=HTTPStatus.SWITCHING_PROTOCOLS,
    responses={
        101: {"description": "A WebSocket is open."},
        **LIVING,
        **responses(HTTPStatus.UPGRADE_REQUIRED),
    },
)
async def terminal(
    caller: CanUseSandboxes,
    stream: Annotated[ProcessStream, Depends(attached)],
    # After `stream`: so a plain request, too, gets 404 for another tenant's sandbox.
    socket: Annotated[Socket, Depends(offered)],
    sandbox_id: SandboxId,
    process: ProcessNumber,
    parts: Parts,
) -> Response:
    """Open the terminal of a process that was started with one, by WebSocket.

    Binary messages are bytes: you send the input, and receive what the process writes, from byte
    `offset` on. Text messages are JSON. You may send `{"resize": {"rows": 24, "columns": 80}}`. You
    may get `{"gap": {"offset": …, "omitted_bytes": …}}` in place of bytes that the sandbox no
    longer keeps, and at the end `{"exit": {"offset": …, "exit_code": …, "signal": …, "timed_out":
    …}}`. A binary message may have 64 KiB, a text message 1 KiB.

    If you disconnect, the process goes on. To resume, count the bytes that you received and those
    in gaps, and open the terminal again at that `offset`. The close code is 1000 after the exit,
    1012 if the API restarts, and otherwise 4000 plus the status of the failure: 4401 if your right
    has ended, 4410 if the sandbox has.
    """

    async def resize(size: TerminalSize) -> None:
        await parts.using.resize(caller, sandbox_id, process, size)

    return TerminalTalk(socket, stream, resize)


class TerminalTalk(Response):
    """The answer that opens a WebSocket, and lasts as long as the WebSocket is open."""

    def __init__(
        self,
        socket: Socket,
        stream: ProcessStream,
        resize: Callable[[TerminalSize], Awaitable[None]],
    ) -> None:
        super().__init__(status_code=HTTPStatus.SWITCHING_PROTOCOLS)
        self._socket = socket
        self._stream = stream
        self._resize = resize
        self._size: TerminalSize | None = None
        self._resized = asyncio.Event()

    async def __call__(
        self,
        scope: Scope,  # noqa: ARG002 - ASGI's signature
        receive: Receive,  # noqa: ARG002
        send: Send,
    ) -> None:
        """Serve the terminal until the process has ended, or one of the two ends leaves."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": []})
        try:
            await self._talk()
        except WentAway:
            return
        except RunnerError as error:
            await self._socket.close(*closing(error))
        else:
            await self._socket.close(NORMAL, "the process has ended")

    async def _talk(self) -> None:
        tasks = [
            asyncio.create_task(work) for work in (self._tell(), self._hear(), self._resize_often())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self) -> None:
        """Pass on what the process writes, until it has ended."""
        async for piece in self._stream.output():
            if isinstance(piece, OutputGap):
                await self._socket.tell(GapMessage.of(piece).model_dump_json())
            else:
                await self._socket.tell(piece.data)
        if (end := self._stream.end) is None:
            raise NodeAway("the node did not tell how the process ended")
        message = ExitMessage.of(end, self._stream.offset)
        await self._socket.tell(message.model_dump_json())

    async def _hear(self) -> None:
        """Pass on input, and note new sizes. Raises WentAway."""
        gone = False
        while True:
            match await self._socket.hear():
                case bytes(typed) if typed and not gone:
                    try:
                        await self._stream.send(typed)
                    except NodeAway:
                        # Its output says what has become of the process.
                        gone = True
                case str(text):
                    try:
                        self._size = _asked(text).resize.size()
                    except (NotStrict, ValidationError):
                        why = 'a text message must be {"resize": {"rows": …, "columns": …}}'
                        await self._socket.close(UNINTELLIGIBLE, why)
                        raise WentAway from None
                    self._resized.set()

    async def _resize_often(self) -> None:
        while True:
            await self._resized.wait()
            self._resized.clear()
            if self._size is not None:
                # An ended or frozen process cannot be resized; its end is reported elsewhere.
                with suppress(RunnerError):
                    await self._resize(self._size)
            await asyncio.sleep(RESIZE_EVERY_S)


def _asked(text: str) -> ResizeMessage:
    if len(text) > MAX_TEXT:
        raise NotStrict("too long")
    value: Any = read(text.encode())
    return ResizeMessage.model_validate(value)
