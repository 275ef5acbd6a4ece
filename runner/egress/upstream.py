"""Connections to what was decided on, and to nothing else."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.egress.addresses import Network
from runner.egress.certificates import Leaves
from runner.egress.decide import Asking, Denied, Lookup, Target, decide
from runner.egress.names import Address
from runner.egress.session import Session
from runner.egress.streams import PIECE, Connection


class Unreachable(Denied):
    """Permitted, but it does not answer: the network's fault, not the policy's."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the proxy waits, in seconds."""

    head_s: float = 10.0
    connect_s: float = 10.0
    idle_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Outside:
    """The network as the proxy reaches it, the same for every sandbox."""

    lookup: Lookup
    trusted: tuple[Network, ...]
    tls: ssl.SSLContext
    leaves: Leaves
    timeouts: Timeouts = field(default_factory=Timeouts)

    async def decide(self, session: Session, asking: Asking, host: str, port: int) -> Target:
        """Return what to connect to. Raises Denied."""

        async def lookup(name: str) -> Sequence[Address]:
            async with session.lookups:
                return await self.lookup(name)

        return await decide(session.policy, asking, host, port, lookup=lookup, trusted=self.trusted)

    async def connect(self, target: Target, *, tls: bool) -> tuple[Connection, Address]:
        """Connect to the first of the target's addresses that answers. Raises Unreachable.

        With `tls` the server must prove to be the host that was decided on.
        """
        problem: Exception | None = None
        for address in target.addresses:
            try:
                async with asyncio.timeout(self.timeouts.connect_s):
                    reader, writer = await asyncio.open_connection(
                        str(address),
                        target.port,
                        limit=PIECE,
                        ssl=self.tls if tls else None,
                        server_hostname=target.host.strip("[]") if tls else None,
                    )
            except (OSError, TimeoutError) as error:
                problem = error
            else:
                return Connection(reader, writer, idle_s=self.timeouts.idle_s), address
        unreachable = Unreachable("unreachable", _why(target, problem), rule=target.rules[0])
        unreachable.address = target.addresses[0]
        raise unreachable


def trusting(extra_roots: str) -> ssl.SSLContext:
    """Return a context that verifies servers by the system's authorities and these (PEM)."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if extra_roots:
        context.load_verify_locations(cadata=extra_roots)
    return context


def _why(target: Target, problem: Exception | None) -> str:
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"{target.host} showed a certificate that is not valid: {problem.verify_message}"
    if isinstance(problem, TimeoutError):
        return f"{target.host} did not answer in time"
    return f"{target.host} cannot be reached: {problem}"
