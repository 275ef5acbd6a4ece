"""A network between a process and a part that it needs: it stalls, cuts, or loses an answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

POSTGRES = ".s.PGSQL.5432"
"""The name of PostgreSQL's socket in its folder."""

Place = Path | int
"""Path of a Unix socket, or number of a port of 127.0.0.1."""


class Network:
    """Lies between a process and a part. Unless `open`, it carries nothing and reports nothing.

    It ends a connection instead of carrying an answer that holds the bytes `lost`.
    """

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.lost: bytes | None = None
        self._places: tuple[Place, Place] | None = None
        self._server: asyncio.Server | None = None
        self._ways: set[asyncio.Task[None]] = set()
        self._serving: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def to(self, real: Place, here: Place) -> AsyncIterator[None]:
        """Lead from a place `here`, where it listens, to the part's `real` one."""
        self._places = real, here
        await self.restore()
        try:
            yield
        finally:
            self.cut()
            if self._serving:
                await asyncio.wait(self._serving)

    def cut(self) -> None:
        """End all connections and refuse new ones, as if the part had been killed."""
        if self._server is not None:
            self._server.close()
        for way in self._ways:
            way.cancel()

    async def restore(self) -> None:
        """Listen, as if the part had been started again. Raises RuntimeError outside of `to`."""
        if self._places is None:
            raise RuntimeError("this network leads nowhere")
        if self._server is not None and self._server.is_serving():
            return
        _, here = self._places
        if isinstance(here, Path):
            here.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, here)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", here)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            with suppress(OSError):
                await self._lead(reader, writer)
        finally:
            await _closed(writer)
            self._serving.discard(task)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._places is not None
        real, _ = self._places
        their_reader, their_writer = await (
            asyncio.open_unix_connection(real)
            if isinstance(real, Path)
            else asyncio.open_connection("127.0.0.1", real)
        )
        ways = {
            asyncio.create_task(self._ask(reader, their_writer)),
            asyncio.create_task(self._answer(their_reader, writer)),
        }
        self._ways |= ways
        try:
            await asyncio.wait(ways)
        finally:
            self._ways -= ways
            await _closed(their_writer)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                await self.open.wait()
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                await self.open.wait()
                if self.lost is not None and self.lost in piece:
                    break
                writer.write(piece)
                await writer.drain()
        writer.close()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
