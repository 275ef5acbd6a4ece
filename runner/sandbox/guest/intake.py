"""Hands on what a living sandbox says as soon as it comes: no task has to wake for it.

It takes a connection over from its streams, which copy each byte twice before anybody reads it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from runner.protocol.frames import PIECE
from runner.sandbox.guest.channel import Connection


class Intake(asyncio.Protocol):
    """The reading end of a connection. Its writer goes on as before."""

    def __init__(
        self, connection: Connection, hear: Callable[[bytes], None], hung_up: Callable[[], None]
    ) -> None:
        """Call `hear` with all bytes in their order, and `hung_up` once no more will come."""
        self._hear = hear
        self._hung_up = hung_up
        self._transport = cast("asyncio.Transport", connection.writer.transport)
        self._streams = cast("asyncio.Protocol", self._transport.get_protocol())
        self._resting: asyncio.TimerHandle | None = None
        self._transport.pause_reading()
        self._transport.set_protocol(self)
        self._taking_over = asyncio.create_task(self._take_over(connection))

    @property
    def rests(self) -> bool:
        """Whether nothing is read for a while."""
        return self._resting is not None

    def rest(self, seconds: float) -> None:
        """Leave further bytes in the kernel for so long; then call `hear` with none."""
        self._transport.pause_reading()
        self._resting = asyncio.get_running_loop().call_later(seconds, self._go_on)

    def stop(self) -> None:
        """Read no more."""
        self._taking_over.cancel()
        if self._resting is not None:
            self._resting.cancel()
        self._transport.abort()

    async def _take_over(self, connection: Connection) -> None:
        """Hand on what was read before, which the streams hold, and read on."""
        self._hear(connection.heard)
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0):
                    try:
                        data = await connection.reader.read(PIECE)
                    except ConnectionError:
                        data = b""
                if not data:
                    self._hung_up()
                    return
                self._hear(data)
        if not self.rests:
            self._transport.resume_reading()

    def _go_on(self) -> None:
        self._resting = None
        self._hear(b"")
        if not self.rests:
            self._transport.resume_reading()

    # ---- What the transport calls ------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand on what has come."""
        self._hear(data)

    def eof_received(self) -> bool:
        """Note that nothing more comes. The transport stays open until it is aborted."""
        self._hung_up()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        self._streams.connection_lost(exc)
        self._hung_up()

    def pause_writing(self) -> None:
        """Let the writer wait."""
        self._streams.pause_writing()

    def resume_writing(self) -> None:
        """Let the writer go on."""
        self._streams.resume_writing()
