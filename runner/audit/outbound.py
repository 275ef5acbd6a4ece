"""The guard that every delivery passes.

It looks the name up once, and refuses an address that is not public unless the operator trusts its
network. The connection goes to one of these addresses, and the server must prove its name by TLS.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from runner.audit.delivery import Undelivered
from runner.network.addresses import Network
from runner.network.lookup import Lookup, NoAddress, reachable
from runner.network.names import Address, BadName, normalise

_PROBLEMS = {
    "lookup_failed": "its host name was not found",
    "private_address": "its host name is not at a public address",
}


@dataclass(frozen=True, slots=True)
class Destination:
    """The destination of a connection: the normalised host, the port, and the host's addresses."""

    host: str
    port: int
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Guard:
    """Decides which addresses may be connected to."""

    lookup: Lookup
    trusted: Sequence[Network]

    async def resolve(self, host: str, port: int) -> Destination:
        """Return what to connect to for this host. Raises Undelivered."""
        try:
            name = normalise(host)
            addresses = await reachable(name, self.lookup, self.trusted)
        except BadName as error:
            raise Undelivered("its host name is not valid", f"the host is {error}") from None
        except NoAddress as error:
            # The address itself would tell the tenant about networks that it cannot look into.
            raise Undelivered(_PROBLEMS[error.reason], error.detail) from None
        return Destination(name, port, addresses)
