"""How a new sandbox's supervisor connects to its node, once, before any program of a tenant runs.

The socket is unlinked as soon as somebody has connected: nobody can connect later.
"""

import asyncio
import socket
import struct
from pathlib import Path

from runner.base.sockets import accept
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.maker import Made
from runner.sandbox.guest.channel import Channel
from runner.sandbox.guest.sockets import SUPERVISOR_SOCKET
from runner.words.errors import LaunchFailed, ProtocolViolation

_LOOK_S = 1.0
"""How often it is asked whether the container still runs while nobody connects."""
_CREDENTIALS = struct.Struct("3i")


async def meet(
    listener: socket.socket, home: Path, made: Made, engine: Engine, timeout_s: float
) -> Channel:
    """Accept the one connection and agree with the supervisor on how both speak.

    Raises LaunchFailed when nobody reports in time, ProtocolViolation when another user does, and
    ImageIncompatible when the supervisor and this node share no generation of the protocol.
    """
    try:
        async with asyncio.timeout(timeout_s):
            connection = await _accept(listener, made, engine)
            home.joinpath(SUPERVISOR_SOCKET).unlink()
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            channel = Channel(reader, writer)
            try:
                await channel.greet(made.image)
            except BaseException:
                channel.close()
                raise
            return channel
    except TimeoutError:
        raise LaunchFailed(
            f"the sandbox's supervisor did not report within {timeout_s:g} s"
        ) from None


async def _accept(listener: socket.socket, made: Made, engine: Engine) -> socket.socket:
    while True:
        look = asyncio.timeout(_LOOK_S)
        try:
            async with look:
                connection = await accept(listener)
        except TimeoutError:
            if not look.expired():
                raise
            state = await engine.state(made.id)
            if not state.get("Running"):
                code = state.get("ExitCode")
                raise LaunchFailed(
                    f"the sandbox's supervisor ended at once, exit code {code}"
                ) from None
        else:
            break
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    if uid != made.peer:
        connection.close()
        raise ProtocolViolation(f"user {uid} connected to the sandbox's socket")
    return connection
