"""A network between a process and PostgreSQL that stalls, or loses an answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

SOCKET = ".s.PGSQL.5432"


class Network:
    """Lies between a process and PostgreSQL. Unless `open`, it carries nothing and reports nothing.

    It ends a connection instead of carrying an answer that holds the bytes `lost`.
    """

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.lost: bytes | None = None

    @asynccontextmanager
    async def to(self, real: Path, here: Path) -> AsyncIterator[None]:
        """Lead from a socket in the folder `here` to PostgreSQL's in the folder `real`."""
        server = await asyncio.start_unix_server(
            lambda reader, writer: self._serve(reader, writer, real / SOCKET), here / SOCKET
        )
        async with server:
            yield

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, real: Path
    ) -> None:
        their_reader, their_writer = await asyncio.open_unix_connection(real)
        ways = [self._ask(reader, their_writer), self._answer(their_reader, writer)]
        try:
            await asyncio.gather(*ways)
        finally:
            their_writer.close()
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            await self.open.wait()
            writer.write(piece)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            await self.open.wait()
            if self.lost is not None and self.lost in piece:
                break
            writer.write(piece)
        writer.close()
