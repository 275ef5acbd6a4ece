"""The proxy process: begins, gives up its rights, and serves sessions until its worker is gone."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from runner.egress.addresses import networks
from runner.egress.certificates import Leaves
from runner.egress.confine import confine
from runner.egress.control import Control
from runner.egress.decide import system_lookup
from runner.egress.policy import policy_from_json
from runner.egress.serve import serve_connection
from runner.egress.session import Decision, Session
from runner.egress.streams import PIECE
from runner.egress.upstream import Outside, trusting
from runner.errors import SetupError

LOOKUP_S = 5.0
LOOKUP_THREADS = 64

_log = structlog.get_logger("runner.egress")


class _Sandbox:
    """One session, the server at its socket, and the connections it has."""

    def __init__(
        self, session: Session, server: asyncio.Server, connections: set[asyncio.Task[None]]
    ) -> None:
        self.session = session
        self._server = server
        self._connections = connections

    async def close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


class Proxy:
    """Serves the sessions that the worker opens."""

    def __init__(self, control: Control, outside: Outside) -> None:
        self._control = control
        self._outside = outside
        self._sandboxes: dict[str, _Sandbox] = {}
        self._decided: asyncio.Queue[Decision] = asyncio.Queue()

    async def run(self) -> None:
        """Obey until the worker hangs up. Raises ConnectionError then."""
        telling = asyncio.create_task(self._tell())
        try:
            while True:
                message, descriptor = await self._control.receive()
                if message["do"] == "open" and descriptor is not None:
                    await self._open(message, socket.socket(fileno=descriptor))
                elif message["do"] == "close":
                    await self._close(message["session"])
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _open(self, message: dict[str, Any], listener: socket.socket) -> None:
        session = Session(
            message["session"],
            policy_from_json(message["policy"]),
            message["secrets"],
            self._decided.put_nowait,
        )
        connections: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if not server.is_serving():
                # Accepted before the session was closed, and begun afterwards.
                writer.close()
                return
            if task is not None:
                connections.add(task)
                task.add_done_callback(connections.discard)
            # Cancelled by `close` alone: an end like any other, which the server must not log.
            with contextlib.suppress(asyncio.CancelledError):
                await serve_connection(session, self._outside, reader, writer)

        server = await asyncio.start_unix_server(serve, sock=listener, limit=PIECE)
        self._sandboxes[session.id] = _Sandbox(session, server, connections)

    async def _close(self, id_: str) -> None:
        sandbox = self._sandboxes.pop(id_, None)
        if sandbox is None:
            return
        await sandbox.close()
        while not self._decided.empty():
            await self._send_decision(self._decided.get_nowait())
        await self._control.send(
            {"say": "closed", "session": id_, "summary": asdict(sandbox.session.summary())}
        )

    async def _tell(self) -> None:
        while True:
            await self._send_decision(await self._decided.get())

    async def _send_decision(self, decision: Decision) -> None:
        await self._control.send(
            {"say": "decided", "decision": {**asdict(decision), "at": decision.at.isoformat()}}
        )


async def main(link: socket.socket) -> None:
    """Serve as the process at the other end of this socket says."""
    control = Control(link)
    message, _ = await control.receive()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(LOOKUP_THREADS))
    lookup = system_lookup(message["hosts"], LOOKUP_S)
    outside = Outside(
        lookup=lookup,
        trusted=networks(message["trusted"]),
        tls=trusting(message["roots"]),
        leaves=Leaves(message["ca_key"], message["ca_certificate"]),
    )
    await _load_what_loads_late(lookup, outside.leaves)
    try:
        confine(message["uid"], Path(message["profiles_dir"]))
    except SetupError as error:
        await control.send({"say": "failed", "why": error.detail})
        return
    await control.send({"say": "ready"})
    try:
        await Proxy(control, outside).run()
    except ConnectionError:
        _log.info("worker_gone")


async def _load_what_loads_late(lookup: Callable[[str], Awaitable[object]], leaves: Leaves) -> None:
    """Use once what imports a part of itself at its first use: afterwards nothing is imported."""
    leaves.context("localhost")
    try:
        await lookup("localhost")
    except OSError as error:
        _log.debug("resolver_has_no_localhost", error=str(error))
