"""A living sandbox as its node holds it, whose supervisor is a process of this host."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from runner.protocol.commands import Live
from runner.protocol.events import Living
from runner.sandbox.guest.channel import Channel
from runner.sandbox.guest.container import Container
from runner.sandbox.guest.living import LivingSandbox, Residence
from runner.sandbox.guest.meeting import Awaited, meet_again
from runner.sandbox.guest.mux import Mux
from runner.sandbox.guest.patience import Patience
from runner.sandbox.guest.sockets import SUPERVISOR_SOCKET, listen
from tests.support.living import HERE, SUPERVISOR

SECRET = "5e" * 32
WAITS = Patience(10)
"""For a host that is busy with other tests."""


class House:
    """The home of one supervisor: its folder, its workspace, its process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.socket = folder / SUPERVISOR_SOCKET
        self.process: asyncio.subprocess.Process | None = None
        self.waits = WAITS
        self._living: list[LivingSandbox] = []

    async def start(self) -> LivingSandbox:
        """Start the supervisor, and have it live."""
        with self.door() as listener:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", HERE, SUPERVISOR, self.socket, self.workspace
            )
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        self.socket.unlink()
        channel = Channel(*await asyncio.open_unix_connection(sock=connection))
        await channel.greet("test")
        await channel.send(Live(SECRET, alone_s=60, egress=False, trust=""))
        await channel.expect(Living)
        return self._held(channel, returning=False)

    async def adopt(self, secret: str = SECRET, *, timeout_s: float = 60.0) -> LivingSandbox:
        """Take the supervisor over that has lost its node."""
        with self.door() as listener:
            channel = await meet_again(listener, self.awaited(secret), timeout_s)
        self.socket.unlink()
        living = self._held(channel, returning=True)
        await living.take_over()
        return living

    def awaited(self, secret: str = SECRET, *, pid: int | None = None) -> Awaited:
        """Return who is to return."""
        return Awaited("sandbox", "test", secret, user=os.getuid(), pid=pid)

    def door(self) -> socket.socket:
        """Listen for the supervisor."""
        self.socket.unlink(missing_ok=True)
        return listen(self.folder, SUPERVISOR_SOCKET, backlog=16)

    def _held(self, channel: Channel, *, returning: bool) -> LivingSandbox:
        residence = Residence("sandbox", "container", SECRET, "image", "profile")
        # There is no container: what only Docker can do is not tried here.
        container = cast("Container", None)
        mux = Mux(channel.release(), self.waits, returning=returning)
        self._living.append(LivingSandbox(residence, container, mux, self.waits))
        return self._living[-1]

    async def stop(self) -> None:
        """End it, if it is still there."""
        for living in self._living:
            living.leave()
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    """Open a house; at the end nobody lives in it."""
    opened = House(folder)
    try:
        yield opened
    finally:
        await opened.stop()
