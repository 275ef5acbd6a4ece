"""Bytes in order, both ways: a connection as it is, counted, or with TLS ended here."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol

PIECE = 256 * 1024
LINGER_S = 5.0
"""How long the other side may take to take the last of what it was sent."""


class Stream(Protocol):
    """Two directions of bytes."""

    async def receive(self) -> bytes:
        """Return some bytes; none at the end."""

    async def send(self, data: bytes) -> None:
        """Send all of the bytes."""

    async def end(self) -> None:
        """Send the end; the other direction goes on."""

    def cut(self) -> None:
        """Close at once."""


class Connection:
    """A connection; bytes that were read too far can be put back."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        idle_s: float,
        count: Callable[[int, int], None] = lambda _up, _down: None,
    ) -> None:
        """`count` is told the bytes received and sent, and may refuse more by raising."""
        self._reader = reader
        self._writer = writer
        self._idle_s = idle_s
        self._count = count
        self._back = b""

    def put_back(self, data: bytes) -> None:
        """Have these bytes received again, first."""
        self._back = data + self._back

    async def receive(self) -> bytes:
        """Return some bytes; none at the end. Raises TimeoutError when nothing comes."""
        if self._back:
            data, self._back = self._back, b""
            return data
        async with asyncio.timeout(self._idle_s):
            data = await self._reader.read(PIECE)
        self._count(len(data), 0)
        return data

    async def send(self, data: bytes) -> None:
        """Send all of the bytes; waits while the other side does not take them."""
        self._count(0, len(data))
        self._writer.write(data)
        async with asyncio.timeout(self._idle_s):
            await self._writer.drain()

    async def end(self) -> None:
        """Send the end, where the connection can."""
        if self._writer.can_write_eof():
            self._writer.write_eof()

    @property
    def ended(self) -> bool:
        """Whether the other side has said its last."""
        return self._reader.at_eof() or self._writer.is_closing()

    def cut(self) -> None:
        """Close at once; what was sent is still delivered to who takes it soon."""
        self._writer.close()
        transport = self._writer.transport
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(min(LINGER_S, self._idle_s), transport.abort)


class EndedTls:
    """The server's end of TLS over a connection some of whose bytes were looked at already."""

    def __init__(self, below: Connection, context: ssl.SSLContext) -> None:
        self._below = below
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def handshake(self) -> None:
        """Come to terms with the client; raises ssl.SSLError when it does not accept us."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                await self._flush()
                return

    async def receive(self) -> bytes:
        """Return some bytes; none at the end."""
        while True:
            try:
                data = self._tls.read(PIECE)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            else:
                return data

    async def send(self, data: bytes) -> None:
        """Send all of the bytes."""
        self._tls.write(data)
        await self._flush()

    async def end(self) -> None:
        """Tell that nothing more comes."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            # The client has not said its own goodbye, and need not.
            await self._flush()

    def cut(self) -> None:
        """Close at once."""
        self._below.cut()

    async def _fill(self) -> None:
        if data := await self._below.receive():
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._below.send(data)
