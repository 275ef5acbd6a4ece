"""A local port that stands for one inside a sandbox."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agent_runner._async.sockets import connected
from agent_runner.errors import ApiError
from agent_runner.transport import LOOPBACK

PIECE = 32 * 1024
FINISH = "finish"
MOST_WAITING = 128


class AsyncForward:
    """Listens on this host's loopback, and carries each connection through the API.

    As a context manager, it ends all connections at the end of the context.
    """

    def __init__(self, http: httpx.AsyncClient, path: str, local: int = 0) -> None:
        self._http = http
        self._path = path
        self._listener: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.port = local
        """The port on which it listens."""
        self.failure: ApiError | None = None
        """The reason why the last failed connection failed; None if none has."""

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(
            self._accept, LOOPBACK, self.port, backlog=MOST_WAITING
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Listen no more, and end all connections."""
        if self._listener is not None:
            self._listener.close()
        serving = list(self._serving)
        for each in serving:
            each.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with connected(self._http, self._path) as inside:
                sending = asyncio.ensure_future(_inward(reader, inside))
                try:
                    await _outward(writer, inside)
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
        except ApiError as error:
            self.failure = error
        except (OSError, ConnectionClosed):
            # One of the two ends has gone, and so has the connection.
            return
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _outward(writer: asyncio.StreamWriter, inside: ClientConnection) -> None:
    """Pass on what the server inside sends, until it sends no more."""
    async for message in inside:
        if message == FINISH:
            writer.write_eof()
        elif isinstance(message, bytes):
            writer.write(message)
            await writer.drain()


async def _inward(reader: asyncio.StreamReader, inside: ClientConnection) -> None:
    """Pass on what the local client sends, until it sends no more."""
    try:
        while data := await reader.read(PIECE):
            await inside.send(data)
        await inside.send(FINISH)
    except (OSError, ConnectionClosed):
        # `_outward` sees the same.
        await inside.close()
