"""Connections to the address that was decided on, and to nothing else."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from runner.egress.certificates import Leaves
from runner.egress.decide import Asking, Denied, Target, decide
from runner.egress.session import Meter, ProxySession
from runner.egress.share import MAX_LOOKUPS, Share
from runner.egress.streams import Connection, Stream, Tls
from runner.network.addresses import Network
from runner.network.lookup import Lookup
from runner.network.names import Address
from runner.network.roots import client_context

_log = structlog.get_logger("runner.egress")


class Unreachable(Denied):
    """The rules permit it, but it does not answer: a fault of the network, not of the policy."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The time-outs of the proxy, in seconds."""

    lookup_s: float = 5.0
    head_s: float = 10.0
    connect_s: float = 10.0
    idle_s: float = 120.0
    place_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Outside:
    """The network as the proxy reaches it, the same for every sandbox."""

    lookup: Lookup
    trusted: tuple[Network, ...]
    tls: ssl.SSLContext
    leaves: Leaves
    timeouts: Timeouts = field(default_factory=Timeouts)

    async def decide(self, session: ProxySession, asking: Asking, host: str, port: int) -> Target:
        """Return what to connect to. Raises Denied."""

        async def lookup(name: str) -> Sequence[Address]:
            try:
                async with asyncio.timeout(self.timeouts.lookup_s):
                    await session.share.lookups.acquire()
                    looking = asyncio.ensure_future(self.lookup(name))
                    looking.add_done_callback(partial(_looked, session.share))
                    # A lookup's thread cannot be stopped, so the lookup counts until the thread
                    # ends.
                    return await asyncio.shield(looking)
            except TimeoutError:
                raise TimeoutError(
                    f"no answer within {self.timeouts.lookup_s:g} s; a tenant's lookups "
                    f"beyond {MAX_LOOKUPS} at once wait for their turn in this time"
                ) from None

        while True:
            policy = session.policy
            target = await decide(policy, asking, host, port, lookup=lookup, trusted=self.trusted)
            # The rules may have changed while the name was looked up.
            if session.policy is policy:
                session.hold(asking, target)
                return target

    async def connect(
        self, session: ProxySession, meter: Meter, target: Target, *, tls: bool
    ) -> tuple[Stream, Address]:
        """Connect to the first address of the target that answers. Raises Unreachable.

        With `tls`, the server must prove that it is the host that was decided on.
        """
        problem: Exception | None = None
        for address in target.addresses:
            try:
                async with asyncio.timeout(self.timeouts.connect_s):
                    link = await _dialled(address, target.port)
                    connection = Connection(
                        link, session.share, idle_s=self.timeouts.idle_s, count=meter.count_server
                    )
                    if not tls:
                        return connection, address
                    return await self._begun(connection, target.host), address
            except (OSError, TimeoutError) as error:
                problem = error
        unreachable = Unreachable("unreachable", _why(target, problem), rule=target.rules[0])
        unreachable.address = target.addresses[0]
        raise unreachable

    async def _begun(self, connection: Connection, host: str) -> Tls:
        encrypted = Tls(connection, self.tls, host.strip("[]"))
        try:
            await encrypted.handshake()
        except BaseException:
            connection.cut()
            raise
        return encrypted


def _looked(share: Share, looking: asyncio.Future[Sequence[Address]]) -> None:
    share.lookups.release()
    if not looking.cancelled() and (error := looking.exception()):
        _log.debug("not_found", error=str(error))


async def _dialled(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
    link = socket.socket(family, socket.SOCK_STREAM)
    try:
        link.setblocking(False)  # noqa: FBT003 - the standard library's signature
        # A request's head and body are two writes: the second must not wait for the first one's
        # ACK.
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(link, (str(address), port))
    except BaseException:
        link.close()
        raise
    return link


def trusting(extra_roots: str) -> ssl.SSLContext:
    """Return a context that verifies servers by the system's authorities and by these (PEM)."""
    context = client_context(extra_roots)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _why(target: Target, problem: Exception | None) -> str:
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"{target.host} showed a certificate that is not valid: {problem.verify_message}"
    if isinstance(problem, TimeoutError):
        return f"{target.host} did not answer in time"
    return f"{target.host} cannot be reached: {problem}"
