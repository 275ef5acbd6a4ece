"""The proxy process: starts, gives up its rights, and serves sessions until its worker is gone."""

import asyncio
import encodings.idna
import encodings.punycode
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import idna.uts46data
import structlog

from runner.base.sockets import accept
from runner.egress.certificates import Leaves
from runner.egress.confine import confine
from runner.egress.control import Control
from runner.egress.policy import policy_from_json
from runner.egress.serve import serve_connection
from runner.egress.session import NOTHING, Decision, ProxySession
from runner.egress.share import Share, Slots
from runner.egress.upstream import Outside, trusting
from runner.network.addresses import networks
from runner.network.lookup import system_lookup
from runner.words.errors import SetupError

LOOKUP_THREADS = 64
ACCEPT_AGAIN_S = 0.5
_OWN_DESCRIPTORS = 1024
"""Reserved for listeners of sandboxes, lookups and the proxy itself; a connection needs two."""

_LOADED = (encodings.idna, encodings.punycode, idna.uts46data)
"""Python loads these at the first name that it looks up or translates. By then, this process has no
rights, and the folder that they are in may be out of reach."""

_log = structlog.get_logger("runner.egress")


class Sandbox:
    """One session at its socket, with its connections."""

    def __init__(
        self, session: ProxySession, outside: Outside, slots: Slots, listener: socket.socket
    ) -> None:
        self.session = session
        self._outside = outside
        self._slots = slots
        self._listener = listener
        self._connections: set[asyncio.Task[None]] = set()
        self._accepting = session.share.start(self._accept())
        self._accepting.add_done_callback(self._stopped)

    async def _accept(self) -> None:
        share = self.session.share
        await self.session.prepare()
        while True:
            try:
                link = await accept(self._listener)
            except OSError as error:
                _log.warning("not_accepted", session=self.session.id, error=str(error))
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            try:
                # Meanwhile, all others wait in the kernel's queue, where they cost nothing.
                await share.turn()
                await self._slots.take(share)
            except asyncio.CancelledError:
                link.close()
                raise
            connection = share.start(serve_connection(self.session, self._outside, link))
            self._connections.add(connection)
            connection.add_done_callback(partial(self._ended, link))

    def _stopped(self, accepting: asyncio.Task[None]) -> None:
        if not accepting.cancelled() and (error := accepting.exception()):
            _log.error("session_failed", session=self.session.id, exc_info=error)
            # Clients are then refused at once, instead of waiting for an answer in vain.
            self._listener.close()

    def _ended(self, link: socket.socket, connection: asyncio.Task[None]) -> None:
        # A task that was cancelled before its first step has closed nothing.
        link.close()
        self._connections.discard(connection)
        self._slots.give(self.session.share)
        if not connection.cancelled() and (error := connection.exception()):
            _log.error("connection_failed", session=self.session.id, exc_info=error)

    async def close(self) -> None:
        """Accept no more connections, and cut all that are open."""
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._listener.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


class Proxy:
    """Serves the sessions that the worker opens."""

    def __init__(self, control: Control, outside: Outside, slots: Slots) -> None:
        self._control = control
        self._outside = outside
        self._sandboxes: dict[str, Sandbox] = {}
        self._slots = slots
        # The proxy keeps a share as long as one session of its tenant is open.
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()
        self._decided: asyncio.Queue[Decision] = asyncio.Queue()
        self._changes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Follow the worker until it hangs up. Then raises a group with a ConnectionError."""
        async with asyncio.TaskGroup() as both:
            # If either task fails, the process ends, and the worker starts another.
            both.create_task(self._tell())
            both.create_task(self._obey())

    async def _obey(self) -> None:
        while True:
            message, descriptor = await self._control.receive_with_descriptor()
            if message["do"] == "open" and descriptor is not None:
                self._open(message, socket.socket(fileno=descriptor))
            elif message["do"] == "close":
                await self._close(message["session"])
            elif message["do"] == "change":
                self._change(message)
            elif message["do"] == "count":
                await self._count(message["session"])

    def _open(self, message: dict[str, Any], listener: socket.socket) -> None:
        # Python assumes that an inherited descriptor blocks, and passes that on to its copies.
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        session = ProxySession(
            message["session"],
            policy_from_json(message["policy"]),
            message["secrets"],
            self._decided.put_nowait,
            self._shares.setdefault(message["tenant"], Share()),
        )
        self._sandboxes[session.id] = Sandbox(session, self._outside, self._slots, listener)

    async def _close(self, id_: str) -> None:
        # One whose opening was broken off was never heard of: it is closed, too.
        summary = NOTHING
        if sandbox := self._sandboxes.pop(id_, None):
            await sandbox.close()
            while not self._decided.empty():
                await self._send_decision(self._decided.get_nowait())
            summary = sandbox.session.summary()
        await self._control.send({"say": "closed", "session": id_, "summary": asdict(summary)})

    def _change(self, message: dict[str, Any]) -> None:
        if sandbox := self._sandboxes.get(message["session"]):
            # In a task, as it may wait for its tenant's other sessions: nobody else waits for them.
            task = sandbox.session.share.start(self._changed(sandbox.session, message))
            self._changes.add(task)
            task.add_done_callback(self._ended)

    async def _changed(self, session: ProxySession, message: dict[str, Any]) -> None:
        await session.change(policy_from_json(message["policy"]), message["secrets"])
        await self._control.send(
            {"say": "changed", "session": session.id, "number": message["number"]}
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._changes.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # The worker then does not hear that the rules have changed, and says so.
            _log.error("session_not_changed", exc_info=error)

    async def _count(self, id_: str) -> None:
        if sandbox := self._sandboxes.get(id_):
            summary = asdict(sandbox.session.summary())
            await self._control.send({"say": "counted", "session": id_, "summary": summary})

    async def _tell(self) -> None:
        while True:
            await self._send_decision(await self._decided.get())

    async def _send_decision(self, decision: Decision) -> None:
        await self._control.send(
            {"say": "decided", "decision": {**asdict(decision), "at": decision.at.isoformat()}}
        )


async def main(link: socket.socket) -> None:
    """Serve what the process at the other end of this socket asks for."""
    control = Control(link)
    message = await control.receive()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(LOOKUP_THREADS))
    lookup = system_lookup(message["hosts"], None)
    outside = Outside(
        lookup=lookup,
        trusted=networks(message["trusted"]),
        tls=trusting(message["roots"]),
        leaves=Leaves(message["ca_key"], message["ca_certificate"]),
    )
    await _load_what_loads_late(lookup, outside.leaves)
    try:
        descriptors = confine(message["uid"], Path(message["profiles_dir"]))
    except SetupError as error:
        await control.send({"say": "failed", "why": error.detail})
        return
    await control.send({"say": "ready"})
    try:
        slots = Slots(max(descriptors - _OWN_DESCRIPTORS, 2) // 2)
        await Proxy(control, outside, slots).run()
    except* ConnectionError:
        _log.info("worker_gone")


async def _load_what_loads_late(lookup: Callable[[str], Awaitable[object]], leaves: Leaves) -> None:
    """Use each module that imports parts of itself late, so that all is imported now."""
    leaves.context("localhost")
    try:
        await lookup("localhost")
    except OSError as error:
        _log.debug("resolver_has_no_localhost", error=str(error))
