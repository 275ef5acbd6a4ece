"""From a name to the addresses to which we may connect for it, looked up once."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address

from runner.network.addresses import Network, may_connect
from runner.network.names import Address, address_in, normalise
from runner.words.errors import SetupError

AGAIN_AFTER_S = 0.2
"""A lookup that failed for the moment is repeated once, after this time."""
Lookup = Callable[[str], Awaitable[Sequence[Address]]]


class NoAddress(Exception):
    """A name has no address to connect to. `reason` is for programs, `detail` for people."""

    def __init__(self, reason: str, detail: str, address: Address | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.address = address


async def reachable(name: str, lookup: Lookup, trusted: Sequence[Network]) -> tuple[Address, ...]:
    """Return the addresses for a normalised name. Raises NoAddress if we may connect to none."""
    literal = address_in(name)
    found = [literal] if literal is not None else await _looked_up(lookup, name)
    addresses = tuple(address for address in found if may_connect(address, trusted))
    if not addresses:
        detail = f"{name} is at {found[0]}, which is not a public address"
        raise NoAddress("private_address", detail, found[0])
    return addresses


async def _looked_up(lookup: Lookup, name: str) -> Sequence[Address]:
    try:
        found = await lookup(name)
    except OSError as error:
        raise NoAddress("lookup_failed", f"{name} was not found: {error}") from None
    if not found:
        raise NoAddress("lookup_failed", f"{name} has no address")
    return found


def fixed_answers(hosts: Mapping[str, str]) -> Mapping[str, Address]:
    """Return the addresses that RUNNER_EGRESS_HOSTS gives to names. Raises SetupError."""
    try:
        return {normalise(name): ip_address(address) for name, address in hosts.items()}
    except ValueError as error:
        raise SetupError(f"RUNNER_EGRESS_HOSTS: {error}") from None


def system_lookup(hosts: Mapping[str, str], timeout_s: float | None) -> Lookup:
    """Return a lookup by the host's resolver; `hosts` are the operator's own answers.

    Without `timeout_s`, a lookup takes until the resolver gives up.
    """
    fixed = fixed_answers(hosts)

    async def lookup(name: str) -> Sequence[Address]:
        if name in fixed:
            return [fixed[name]]
        async with asyncio.timeout(timeout_s):
            try:
                return await _resolved(name)
            except socket.gaierror as error:
                if error.errno != socket.EAI_AGAIN:
                    raise
            # A name server that is asked a hundred times at once may refuse a few.
            await asyncio.sleep(AGAIN_AFTER_S)
            return await _resolved(name)

    return lookup


async def _resolved(name: str) -> Sequence[Address]:
    loop = asyncio.get_running_loop()
    # With a trailing dot, the resolver tries no search domain of the host.
    answers = await loop.getaddrinfo(f"{name}.", None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(answer[4][0]) for answer in answers))
