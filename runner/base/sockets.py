"""What asyncio lacks of sockets: to accept a connection that no cancellation loses."""

import asyncio
import socket


async def accept(listener: socket.socket) -> socket.socket:
    """Return the next connection of a listener that does not block; nor does the connection.

    The event loop's `sock_accept` loses a connection that comes as its caller is cancelled. Here
    nothing is awaited once there is one.
    """
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            await _readable(listener)
        else:
            connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
            return connection


async def _readable(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    knocked = asyncio.Event()
    # A descriptor of its own: somebody may close the listener meanwhile, and its number may be
    # another's by the time at which the loop is to forget it.
    with listener.dup() as ours:
        loop.add_reader(ours, knocked.set)
        try:
            await knocked.wait()
        finally:
            loop.remove_reader(ours)
