"""Serves a process's metrics to Prometheus, on this host alone.

Only the path `/metrics` is there, and only on 127.0.0.1: whoever reaches it learns the load of the
host, so another host's Prometheus needs an agent or a tunnel here. Connections, heads and waits are
bounded: no client holds the process up.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST

from runner.words.errors import SetupError

HOST = "127.0.0.1"
MOST_AT_ONCE = 8
MAX_HEAD = 8 * 1024
PATIENCE_S = 5.0
"""How long a client may take to ask and to read."""


@dataclass(slots=True)
class _Exposition:
    read: Callable[[], bytes]
    under_way: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close the connection."""
        self.under_way += 1
        try:
            # Clients that hang up, ask too slowly or too much are nobody's problem but theirs.
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError,
                          asyncio.LimitOverrunError):  # fmt: skip
                async with asyncio.timeout(PATIENCE_S):
                    await self._answer(reader, writer)
        finally:
            self.under_way -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.under_way > MOST_AT_ONCE:
            return
        head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b" ")
        path, _, _ = rest.partition(b" ")
        if (method, path) == (b"GET", b"/metrics"):
            status, body = b"200 OK", self.read()
        else:
            status, body = b"404 Not Found", b"only GET /metrics is here\n"
        writer.write(
            b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (status, CONTENT_TYPE_LATEST.encode(), len(body), body)
        )
        await writer.drain()


@asynccontextmanager
async def exposed(port: int | None, read: Callable[[], bytes]) -> AsyncIterator[None]:
    """Answer `GET /metrics` inside the context with what `read` returns; not without a port.

    Raises SetupError if the port is taken.
    """
    if port is None:
        yield
        return
    serving = _Exposition(read)
    try:
        server = await asyncio.start_server(serving.answer, HOST, port, limit=MAX_HEAD)
    except OSError as error:
        raise SetupError(
            f"RUNNER_WORKER_METRICS_PORT: {HOST}:{port} cannot be listened on: {error.strerror}"
        ) from error
    async with server:
        yield
