"""The door to which APIs on other hosts come: the same calls as at the socket, over TLS."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runner.base.duties import Duties
from runner.door.identity import DoorIdentity
from runner.door.wire import READ_AHEAD
from runner.node.residents.door import ADMITTED_S, NodeDoor
from runner.words.errors import SetupError

FOLLOW_S = 5.0
"""How soon new certificates are used."""


class FarDoor:
    """A listening socket. `follow` is a duty: it serves with the newest certificates."""

    def __init__(self, door: NodeDoor, listener: socket.socket, identity: DoorIdentity) -> None:
        self._door = door
        self._listener = listener
        self._identity = identity
        self._server: asyncio.Server | None = None
        self._serves_with: object = None

    async def follow(self) -> None:
        """Begin to serve, or serve anew if there are other certificates; open calls go on."""
        self._identity.follow()
        context = self._identity.context
        if self._serves_with is context:
            return
        before = self._server
        # The same socket underneath: no connection is refused between the two.
        self._server = await asyncio.start_server(
            self._door.serve_far,
            sock=self._listener.dup(),
            ssl=context,
            ssl_handshake_timeout=ADMITTED_S,
            limit=READ_AHEAD,
        )
        self._serves_with = context
        if before is not None:
            before.close()

    def close(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()


@asynccontextmanager
async def open_far_door(
    door: NodeDoor, place: str, identity: DoorIdentity, duties: Duties
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
        far = FarDoor(door, listener, identity)
        try:
            await far.follow()
            async with duties.doing(
                "following the door's certificates", far.follow, every_s=FOLLOW_S
            ):
                yield far
        finally:
            far.close()
