"""The door to which APIs on other hosts come: the same calls as at the socket, over TLS.

Whoever connects is a stranger until the handshake has shown a certificate of this deployment. All
strangers together hold a bounded number of descriptors, so that the node keeps its own. If there
are too many, the host that has most of them loses its oldest one, so no host can shut out another.
A host whose handshakes keep failing is not greeted for a while (`strangers`).
"""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import structlog

from runner.base.duties import Duties
from runner.base.sockets import accept
from runner.door.identity import DoorIdentity
from runner.door.silence import guard
from runner.door.wire import READ_AHEAD
from runner.node.residents.door import ADMITTED_S, NodeDoor
from runner.node.residents.strangers import Failures
from runner.words.errors import SetupError

FOLLOW_S = 5.0
"""How soon new certificates are used."""
MOST_STRANGERS = 128
"""How many handshakes go on at once. An API's takes a few round trips."""
_log = structlog.get_logger("runner.worker")


class FarDoor:
    """A listening socket. `answer` and `follow` are duties: it uses the newest certificates."""

    def __init__(
        self,
        door: NodeDoor,
        listener: socket.socket,
        identity: DoorIdentity,
        *,
        most: int = MOST_STRANGERS,
        within_s: float = ADMITTED_S,
        failures: Failures | None = None,
    ) -> None:
        """Give at most `most` strangers at once `within_s` seconds to show who they are."""
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._door = door
        self._listener = listener
        self._identity = identity
        self._most = most
        self._within_s = within_s
        self._failures = failures or Failures()
        self._strangers: dict[asyncio.Task[None], str] = {}
        """Handshakes under way, the oldest first, each with the other end's host."""

    async def follow(self) -> None:
        """Let connections that begin later use what the folder of certificates holds now.

        Calls of those whose certificate was revoked are cut.
        """
        if self._identity.follow():
            self._door.refuse(self._identity.taken_back)

    async def answer(self) -> None:
        """Greet whoever connects, for ever. Raises OSError if there are no descriptors left."""
        while True:
            self._meet(await accept(self._listener))
            # A flood of connections must not keep the loop from everything else.
            await asyncio.sleep(0)

    def _meet(self, link: socket.socket) -> None:
        try:
            host = str(link.getpeername()[0])
        except OSError:
            # It has hung up already.
            link.close()
            return
        if self._failures.too_many(host):
            link.close()
            return
        if len(self._strangers) >= self._most:
            self._turn_away()
        task = asyncio.create_task(self._greet(link, host))
        self._strangers[task] = host
        task.add_done_callback(partial(self._greeted, link))

    def _turn_away(self) -> None:
        """Cut the oldest stranger of the host that has most of them."""
        ((greediest, _),) = Counter(self._strangers.values()).most_common(1)
        oldest = next(task for task, host in self._strangers.items() if host == greediest)
        del self._strangers[oldest]
        oldest.cancel()

    async def _greet(self, link: socket.socket, host: str) -> None:
        """Have the other end show its certificate, then answer its call."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_AHEAD)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                link,
                ssl=self._identity.context,
                ssl_handshake_timeout=self._within_s,
            )
        except OSError as error:
            self._failures.add(host)
            _log.debug("stranger_not_let_in", why=str(error) or type(error).__name__)
            return
        self._failures.forget(host)
        guard(transport)
        self._door.serve_far(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    def _greeted(self, link: socket.socket, task: asyncio.Task[None]) -> None:
        self._strangers.pop(task, None)
        if task.cancelled():
            # A task that was cancelled before its first step has closed nothing.
            link.close()
        elif error := task.exception():
            _log.error("stranger_not_greeted", exc_info=error)
            link.close()

    async def close(self) -> None:
        """Cut all strangers. Calls that were admitted are the door's."""
        strangers = list(self._strangers)
        for task in strangers:
            task.cancel()
        await asyncio.gather(*strangers, return_exceptions=True)


@asynccontextmanager
async def open_far_door(
    door: NodeDoor,
    place: str,
    identity: DoorIdentity,
    duties: Duties,
    *,
    most: int = MOST_STRANGERS,
    within_s: float = ADMITTED_S,
    failures: Failures | None = None,
) -> AsyncIterator[FarDoor]:
    """Answer at `place`, a host and a port, inside the context. Raises SetupError."""
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, int(port)), family=family, backlog=128)
    except OSError as error:
        raise SetupError(f"RUNNER_DOOR_ADDRESS: cannot listen at {place}: {error}") from error
    with listener:
        far = FarDoor(door, listener, identity, most=most, within_s=within_s, failures=failures)
        try:
            async with (
                duties.doing("following the door's certificates", far.follow, every_s=FOLLOW_S),
                duties.doing("answering APIs of other hosts", far.answer, lasting=True),
            ):
                yield far
        finally:
            await far.close()
