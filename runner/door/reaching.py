"""Connections to doors, by address: a folder of this host, or another host over TLS.

`unix:FOLDER` is a door whose socket and key are in a folder. `tls://HOST:PORT/NODE` is one that
answers there with the certificate of that node, and of no other.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runner.door.calls import CALLS
from runner.door.grants import GrantKey, Knock, read_key, sign_for
from runner.door.identity import DoorIdentity, DoorRole, peer_of
from runner.door.replies import REPLIES
from runner.door.silence import guard
from runner.door.streams import ApiLine
from runner.door.wire import READ_AHEAD, DoorLine
from runner.words.errors import NodeAway, NotPermitted, SetupError

SOCKET = "door.sock"
_UNIX = "unix:"
_TLS = "tls://"

Sign: TypeAlias = Callable[[Knock, str, float], str]
"""Makes a grant for one call, good for so many seconds."""


def unix_address(folder: Path) -> str:
    """Return the address of the door whose socket and key are in `folder`."""
    return f"{_UNIX}{folder.absolute()}"


def tls_address(place: str, node: str) -> str:
    """Return the address of the door at which a node answers at `place`, a host and a port."""
    return f"{_TLS}{place}/{node}"


@dataclass(frozen=True, slots=True)
class Reached:
    """A connection to a door, and what makes grants that open it."""

    line: ApiLine
    sign: Sign


class DoorWays:
    """Reaches doors. An address of None stands for the door of this host, in `folder`."""

    def __init__(self, folder: Path, certificates: Path | None = None) -> None:
        """Take the folder, and where that is by which nodes on other hosts know this process."""
        self._here = unix_address(folder)
        self._certificates = certificates
        self._identity: DoorIdentity | None = None
        self._keys: dict[Path, GrantKey] = {}

    async def reach(self, address: str | None) -> Reached:
        """Connect. Raises OSError if nobody answers, and NodeAway if somebody else does."""
        address = address or self._here
        if address.startswith(_TLS):
            return await self._over_tls(address.removeprefix(_TLS))
        folder = Path(address.removeprefix(_UNIX))
        reader, writer = await asyncio.open_unix_connection(str(folder / SOCKET), limit=READ_AHEAD)
        return Reached(_line(reader, writer), partial(self._sign_here, folder))

    def doubt(self, address: str | None) -> None:
        """Read the door's key again next time: the node has made a new one."""
        self._keys.pop(Path((address or self._here).removeprefix(_UNIX)), None)

    def _sign_here(self, folder: Path, knock: Knock, call: str, good_for_s: float) -> str:
        return self._key(folder).sign(knock, call, good_for_s=good_for_s)

    def _key(self, folder: Path) -> GrantKey:
        found = self._keys[folder] = self._keys.get(folder) or read_key(folder)
        return found

    async def _over_tls(self, place: str) -> Reached:
        at, _, node = place.partition("/")
        host, _, port = at.rpartition(":")
        identity = self._known(node)
        reader, writer = await asyncio.open_connection(
            host.strip("[]"), int(port), ssl=identity.context, limit=READ_AHEAD
        )
        try:
            peer_of(writer.get_extra_info("ssl_object"), DoorRole.NODE, node)
        except NotPermitted as error:
            writer.transport.abort()
            raise NodeAway(f"{at} is not the node {node}: {error.detail}") from error
        guard(writer.transport)
        key = identity.key
        return Reached(_line(reader, writer), partial(_sign_far, key, node))

    def _known(self, node: str) -> DoorIdentity:
        """Return this process's identity as it is now: the operator may have just brought it."""
        if self._identity is not None:
            self._identity.follow()
            return self._identity
        if self._certificates is None:
            raise NodeAway(
                f"the node {node} is on another host, and this process has no certificate"
            )
        try:
            self._identity = DoorIdentity(self._certificates, DoorRole.API)
        except SetupError as error:
            raise NodeAway(f"the node {node} is on another host: {error.detail}") from error
        return self._identity


def _sign_far(key: Ed25519PrivateKey, node: str, knock: Knock, call: str, good_for_s: float) -> str:
    return sign_for(key, node, knock, call, good_for_s=good_for_s)


def _line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> ApiLine:
    return DoorLine(reader, writer, says=CALLS, hears=REPLIES)
