"""What worker and proxy say to each other: JSON messages over an inherited pair of sockets.

The pair has no path, so nobody else can speak on it. A sandbox's listening socket travels beside
its message (SCM_RIGHTS, unix(7)). The end of the pair is the end of the proxy.
"""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

MAX_MESSAGE = 192 * 1024
"""Below what the kernel takes as one message of a sequenced-packet socket by default."""


class Control:
    """One end of the pair."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._link = link
        self._sending = asyncio.Lock()

    async def send(self, message: Mapping[str, Any], descriptor: int | None = None) -> None:
        """Send one message. Raises ConnectionError when the other end is gone."""
        data = json.dumps(message).encode()
        if len(data) > MAX_MESSAGE:
            raise ValueError(f"a control message of {len(data)} bytes")
        descriptors = [] if descriptor is None else [descriptor]
        async with self._sending:
            while True:
                try:
                    socket.send_fds(self._link, [data], descriptors)
                except BlockingIOError:
                    loop = asyncio.get_running_loop()
                    await self._until(loop.add_writer, loop.remove_writer)
                else:
                    return

    async def receive(self) -> tuple[dict[str, Any], int | None]:
        """Return the next message and what came with it. Raises ConnectionError at the end."""
        while True:
            try:
                data, descriptors, flags, _ = socket.recv_fds(self._link, MAX_MESSAGE, 1)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._until(loop.add_reader, loop.remove_reader)
            else:
                break
        if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            for descriptor in descriptors:
                os.close(descriptor)
            raise ConnectionAbortedError("the other end of the control channel is gone")
        message: dict[str, Any] = json.loads(data)
        return message, descriptors[0] if descriptors else None

    async def _until(self, add: Callable[..., Any], remove: Callable[..., Any]) -> None:
        ready = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        add(self._link, wake)
        try:
            await ready
        finally:
            remove(self._link)

    def close(self) -> None:
        """Hang up."""
        self._link.close()
