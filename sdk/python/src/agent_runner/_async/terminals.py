"""A process's terminal, by WebSocket."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agent_runner.answers import NOT_AS_PROMISED
from agent_runner.closing import closed
from agent_runner.errors import Unavailable
from agent_runner.living import OutputEvent

MAX_MESSAGE_BYTES = 32 * 1024


class AsyncTerminal:
    """A process's terminal: iterate over its output, and send what is typed.

    As a context manager, it disconnects at the end, and the process goes on. One task or thread may
    send and resize while another reads. Raises ApiError; Unavailable if the connection is lost:
    then open another terminal from `offset` on.
    """

    def __init__(
        self, connection: ClientConnection, closing: AsyncExitStack, offset: int = 0
    ) -> None:
        self._connection = connection
        self._closing = closing
        self.offset = offset
        """The offset of the first byte of output that has not arrived here."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[OutputEvent]:
        """Yield its output as `stdout`, and gaps in it. The last event is its end.

        A terminal has only one stream, so stderr is not separate.
        """
        while True:
            event = self._event(await self._received())
            self.offset = event.next_offset
            yield event
            if event.kind == "ended":
                return

    async def send(self, typed: bytes) -> None:
        """Send what is typed."""
        for start in range(0, len(typed), MAX_MESSAGE_BYTES):
            await self._say(typed[start : start + MAX_MESSAGE_BYTES])

    async def resize(self, rows: int, columns: int) -> None:
        """Give it another size."""
        await self._say(json.dumps({"resize": {"rows": rows, "columns": columns}}))

    async def aclose(self) -> None:
        """Disconnect."""
        await self._closing.aclose()

    async def _say(self, message: bytes | str) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed as error:
            raise closed(error) from error

    async def _received(self) -> bytes | str:
        try:
            return await self._connection.recv()
        except ConnectionClosed as error:
            raise closed(error) from error

    def _event(self, message: bytes | str) -> OutputEvent:
        if isinstance(message, bytes):
            return OutputEvent("stdout", self.offset + len(message), message)
        try:
            return self._read(json.loads(message))
        except NOT_AS_PROMISED as error:
            raise Unavailable(
                {"detail": "a message came that is not this API's: is the address right?"}
            ) from error

    def _read(self, said: dict[str, Any]) -> OutputEvent:
        if "gap" in said:
            omitted = int(said["gap"]["omitted_bytes"])
            return OutputEvent("gap", self.offset + omitted, b"", omitted)
        end = said["exit"]
        return OutputEvent(
            kind="ended",
            next_offset=int(end["offset"]),
            raw=b"",
            exit_code=end["exit_code"],
            signal=end["signal"],
            timed_out=end["timed_out"],
        )
