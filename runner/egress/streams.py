"""Bytes in order and in both directions: a plain counted connection, or TLS on top of one.

Nothing is read before somebody asks for it. So a peer that sends without pause fills the kernel's
buffer and then waits, whatever else the loop has to do.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from runner.egress.share import Share

PIECE = 256 * 1024
_RECORDS = 64
"""How many TLS records are read at once if they are small."""
_UNREAD = 4
"""How many pieces of what a peer still sends are discarded when its connection is cut."""


class Stream(Protocol):
    """Two directions of bytes."""

    async def receive(self) -> bytes:
        """Return some bytes; none at the end."""

    async def send(self, data: bytes) -> None:
        """Send all of the bytes."""

    async def end(self) -> None:
        """Send the end; the other direction stays open."""

    @property
    def waits(self) -> bool:
        """Whether it is idle: all is sent, and the peer has neither hung up nor sent more."""

    def cut(self) -> None:
        """Close at once."""


class Connection:
    """A connection. Bytes that were read too far can be put back."""

    def __init__(
        self,
        link: socket.socket,
        share: Share,
        *,
        idle_s: float,
        count: Callable[[int, int], None],
    ) -> None:
        """`count` gets the numbers of bytes received and sent; it may raise to refuse more."""
        self._link = link
        self._share = share
        self._idle_s = idle_s
        self._count = count
        self._back = b""
        self._sending = asyncio.Lock()
        self._unsent = 0

    def put_back(self, data: bytes) -> None:
        """Return these bytes first when more are received."""
        self._back = data + self._back

    async def receive(self) -> bytes:
        """Return some bytes; none at the end. Raises TimeoutError if nothing comes."""
        if self._back:
            data, self._back = self._back, b""
            return data
        await self._share.turn()
        async with asyncio.timeout(self._idle_s):
            data = await asyncio.get_running_loop().sock_recv(self._link, PIECE)
        self._count(len(data), 0)
        return data

    async def send(self, data: bytes) -> None:
        """Send all of the bytes; waits while the peer does not take them."""
        self._count(0, len(data))
        self._unsent += 1
        async with asyncio.timeout(self._idle_s), self._sending:
            await asyncio.get_running_loop().sock_sendall(self._link, data)
        self._unsent -= 1

    async def end(self) -> None:
        """Send the end."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)

    @property
    def waits(self) -> bool:
        """Whether it is idle: all is sent, and the peer has neither hung up nor sent more."""
        if self._unsent or self._back:
            return False
        try:
            self._link.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def cut(self) -> None:
        """Close at once; the bytes that were sent are still delivered."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)
            # With unread bytes, the kernel would reset the connection and drop what was sent.
            for _ in range(_UNREAD):
                if not self._link.recv(PIECE):
                    break
        self._link.close()


class Tls:
    """TLS over a connection, some of whose bytes may have been read already."""

    def __init__(self, below: Connection, context: ssl.SSLContext, host: str | None = None) -> None:
        """Be the client of `host`, or the server if there is none."""
        self._below = below
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=host is None, server_hostname=host
        )

    async def handshake(self) -> None:
        """Agree on keys with the peer. Raises ssl.SSLError if one side refuses the other."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                # Tell the peer why.
                await self._flush()
                raise
            else:
                await self._flush()
                return

    async def receive(self) -> bytes:
        """Return some bytes; none at the end."""
        while True:
            pieces: list[bytes] = []
            try:
                while len(pieces) < _RECORDS:
                    pieces.append(self._tls.read(PIECE))
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b"".join(pieces)
            if pieces:
                return b"".join(pieces)
            await self._flush()
            await self._fill()

    async def send(self, data: bytes) -> None:
        """Send all of the bytes."""
        self._tls.write(data)
        await self._flush()

    async def end(self) -> None:
        """Tell the peer that nothing more comes."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            # The peer has not ended its own direction, and need not.
            await self._flush()

    @property
    def waits(self) -> bool:
        """Whether it is idle: all is sent, and the peer has neither hung up nor sent more."""
        return not self._tls.pending() and not self._incoming.pending and self._below.waits

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
