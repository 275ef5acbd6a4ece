"""A way to accept connections on a socket that loses none when cancelled, as asyncio has none."""

import asyncio
import socket


async def accept(listener: socket.socket) -> socket.socket:
    """Return the next connection of a non-blocking listener; the connection does not block either.

    The event loop's `sock_accept` loses a connection if its caller is cancelled as the connection
    arrives. Here nothing is awaited once there is a connection.
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
    # Use a descriptor of our own. Somebody may close the listener meanwhile, and its number may
    # belong to another file before the loop forgets it.
    with listener.dup() as ours:
        loop.add_reader(ours, knocked.set)
        try:
            await knocked.wait()
        finally:
            loop.remove_reader(ours)
