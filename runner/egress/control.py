"""Messages between worker and proxy: JSON over a pair of sockets that the proxy inherits.

The pair has no path, so nobody else can speak on it. The kernel takes no more than a socket's
buffer at once, so a message travels in pieces. A sandbox's listening socket travels beside the
first piece (SCM_RIGHTS, unix(7)). When the worker closes its end, the proxy ends.
"""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

PIECE = 64 * 1024
"""Well below what the kernel takes at once on a sequenced-packet socket (wmem_default)."""
MAX_MESSAGE = 32 * 2**20
"""Far above the size of any settings or rules: a broken proxy must not fill the worker's memory."""
_FIRST, _LAST = 1, 2
"""Bits of a piece's first byte. When a message was broken off, the next one's first piece shows
it."""


class Control:
    """One end of the pair."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._link = link
        self._sending = asyncio.Lock()
        self._begun = bytearray()
        self._beside: int | None = None

    async def send(self, message: Mapping[str, Any], descriptor: int | None = None) -> None:
        """Send one message. Raises ConnectionError if the other end is gone."""
        data = json.dumps(message).encode()
        if len(data) > MAX_MESSAGE:
            raise ValueError(f"a control message of {len(data)} bytes")
        descriptors = [] if descriptor is None else [descriptor]
        async with self._sending:
            for start in range(0, len(data), PIECE):
                end = start + PIECE
                marks = (_FIRST if start == 0 else 0) | (_LAST if end >= len(data) else 0)
                await self._send_piece(bytes([marks]) + data[start:end], descriptors)
                descriptors = []

    async def _send_piece(self, piece: bytes, descriptors: list[int]) -> None:
        while True:
            try:
                socket.send_fds(self._link, [piece], descriptors)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._until(loop.add_writer, loop.remove_writer)
            else:
                return

    async def receive(self) -> dict[str, Any]:
        """Return the next message. Raises ConnectionError at the end.

        Closes any descriptor that came with it: a broken proxy must not use up the worker's.
        """
        message, descriptor = await self.receive_with_descriptor()
        if descriptor is not None:
            os.close(descriptor)
        return message

    async def receive_with_descriptor(self) -> tuple[dict[str, Any], int | None]:
        """Return the next message and its descriptor. Raises ConnectionError at the end."""
        while True:
            piece, descriptors = await self._receive_piece()
            if piece[0] & _FIRST:
                self._forget()
            if descriptors:
                self._drop_descriptor()
                (self._beside,) = descriptors
            self._begun += piece[1:]
            if len(self._begun) > MAX_MESSAGE:
                self._forget()
                raise ConnectionAbortedError("a control message without end")
            if piece[0] & _LAST:
                message: dict[str, Any] = json.loads(self._begun)
                beside, self._beside = self._beside, None
                self._forget()
                return message, beside

    async def _receive_piece(self) -> tuple[bytes, list[int]]:
        while True:
            try:
                data, descriptors, flags, _ = socket.recv_fds(self._link, 1 + PIECE, 1)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._until(loop.add_reader, loop.remove_reader)
            else:
                break
        if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            for descriptor in descriptors:
                os.close(descriptor)
            raise ConnectionAbortedError("the other end of the control channel is gone")
        return data, descriptors

    def _forget(self) -> None:
        """Drop the pieces of a message that have arrived."""
        self._begun.clear()
        self._drop_descriptor()

    def _drop_descriptor(self) -> None:
        if self._beside is not None:
            os.close(self._beside)
            self._beside = None

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
        self._forget()
        self._link.close()
