"""The guard of everything that is delivered: what egress decides by, decided once.

The name is looked up once, an address that is not public is refused unless the operator trusts
its network, and the connection goes to an address that was decided on. TLS proves the name.
"""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.audit.delivery import Undelivered
from runner.egress.addresses import Network
from runner.egress.decide import Denied, Lookup, Target, decide
from runner.egress.policy import Policy, Rule
from runner.words.errors import SetupError

PROBLEMS = {
    "bad_name": "its host name is not valid",
    "lookup_failed": "its host name was not found",
    "private_address": "its host name is not at a public address",
}


@dataclass(frozen=True, slots=True)
class Guard:
    """Decides which addresses may be connected to."""

    lookup: Lookup
    trusted: Sequence[Network]

    async def resolve(self, host: str, port: int) -> Target:
        """Return what to connect to for this host. Raises Undelivered."""
        policy = Policy(rules=(Rule(host, port),))
        try:
            return await decide(
                policy, "tunnel", host, port, lookup=self.lookup, trusted=self.trusted
            )
        except Denied as denied:
            # Which address it is tells of networks that the tenant cannot look into.
            problem = PROBLEMS.get(denied.reason, "it was refused")
            raise Undelivered(problem, denied.detail) from None
        except TimeoutError:
            raise Undelivered("its host name was not found in time") from None


def tls_context(extra_roots: Path | None) -> ssl.SSLContext:
    """Return a context that verifies servers by the system's authorities and these (PEM).

    Raises SetupError when the file holds no certificates.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if extra_roots is not None:
        try:
            context.load_verify_locations(cafile=extra_roots)
        except (OSError, ssl.SSLError) as error:
            raise SetupError(f"{extra_roots}: not certificates in PEM: {error}") from error
    return context
