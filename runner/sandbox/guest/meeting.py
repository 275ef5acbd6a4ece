"""How a sandbox's supervisor connects to its node.

A new one does so once, before any program of a tenant runs. The socket is unlinked as soon as
somebody has connected: nobody can connect later.

One that lives connects again to the node's next process. Programs of a tenant may do so as well by
then, as the same user: the supervisor proves by its secret which one it is.
"""

import asyncio
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from runner.base.sockets import accept
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.maker import Made
from runner.sandbox.guest.channel import Channel
from runner.sandbox.guest.pace import Pace
from runner.sandbox.guest.sockets import SUPERVISOR_SOCKET
from runner.words.errors import LaunchFailed, ProtocolViolation

_LOOK_S = 1.0
"""How often it is asked whether the container still runs while nobody connects."""
_CREDENTIALS = struct.Struct("3i")
CALLERS = 16
"""How many connections are heard at once while a supervisor is awaited that returns."""
_WORD_S = 1.0
"""How long each of them may take to say who it is."""
_CALLER_S = 300e-6
"""Seconds on a slow core for accepting a connection, hearing it and hanging up."""

_log = structlog.get_logger("runner.worker")


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


@dataclass(frozen=True, slots=True)
class Awaited:
    """The supervisor that is to return."""

    sandbox_id: str
    image: str
    secret: str = field(repr=False)
    user: int
    """The user who must be seen at the other end of its connection."""
    pid: int | None
    """The process at the other end, where that can be told."""


async def meet_again(listener: socket.socket, awaited: Awaited, timeout_s: float) -> Channel:
    """Accept connections until one is of the supervisor that was told this secret.

    Whoever else connects is hung up on, and keeps nobody waiting; however many do, they take no
    more than a sandbox's share of the event loop. Raises LaunchFailed when the supervisor does not
    come in time, and ImageIncompatible as `meet` does.
    """
    callers: set[asyncio.Task[Channel | str]] = set()
    strangers: Counter[str] = Counter()
    pace = Pace()
    accepting = asyncio.create_task(accept(listener))
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                room = {accepting} if len(callers) < CALLERS else set()
                await asyncio.wait({*room, *callers}, return_when=asyncio.FIRST_COMPLETED)
                for caller in [each for each in callers if each.done()]:
                    callers.discard(caller)
                    if isinstance(met := caller.result(), Channel):
                        return met
                    strangers[met] += 1
                if room and accepting.done():
                    pace.charge(_CALLER_S)
                    heard = _recognise(accepting.result(), awaited)
                    callers.add(asyncio.create_task(heard))
                    accepting = asyncio.create_task(accept(listener))
                if pace.overdrawn:
                    await pace.rest()
    except TimeoutError:
        raise LaunchFailed(
            f"the sandbox's supervisor did not return within {timeout_s:g} s"
        ) from None
    finally:
        if strangers:
            _log.warning("strangers_in_sandbox", sandbox=awaited.sandbox_id, seen=dict(strangers))
        await _hang_up(accepting, *callers)


async def _hang_up(*callers: "asyncio.Task[socket.socket] | asyncio.Task[Channel | str]") -> None:
    for caller in callers:
        caller.cancel()
    for each in await asyncio.gather(*callers, return_exceptions=True):
        if isinstance(each, (Channel, socket.socket)):
            each.close()


async def _recognise(connection: socket.socket, awaited: Awaited) -> Channel | str:
    """Return the channel to the supervisor; if somebody else has connected, how that was seen."""
    pid, user, _ = _credentials(connection)
    if user != awaited.user or (pid and awaited.pid and pid != awaited.pid):
        connection.close()
        return "another user or process"
    channel = Channel(*await asyncio.open_unix_connection(sock=connection))
    try:
        async with asyncio.timeout(_WORD_S):
            await channel.welcome(awaited.image, awaited.secret)
    except TimeoutError:
        channel.close()
        return "no word in time"
    except ProtocolViolation:
        channel.close()
        return "not its first word"
    except BaseException:
        channel.close()
        raise
    return channel


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
    try:
        _check_peer(connection, made.peer)
    except ProtocolViolation:
        connection.close()
        raise
    return connection


def _check_peer(connection: socket.socket, peer: int) -> None:
    _, user, _ = _credentials(connection)
    if user != peer:
        raise ProtocolViolation(f"user {user} connected to the sandbox's socket")


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Return process, user and group at the other end; no process if it cannot be seen from here.

    As they were when it connected (unix(7)).
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, group = _CREDENTIALS.unpack(raw)
    return pid, user, group
