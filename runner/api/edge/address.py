"""The client's address: the peer's, or the one that a trusted proxy names."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from runner.network import addresses

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PROXIED = "runner.proxied"
"""Key in the ASGI scope: whether the peer is a trusted proxy, which serves many clients."""


class ClientAddress:
    """Replaces the peer's address in the scope by the client's, for all later checks."""

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and self._trusted and scope["client"]:
            lines = [v for name, v in scope["headers"] if name == b"x-forwarded-for"]
            peer, port = scope["client"]
            scope[PROXIED] = _is_trusted(_parse(peer), self._trusted)
            scope["client"] = (client_address(peer, lines, self._trusted), port)
        await self._app(scope, receive, send)


def client_address(peer: str, lines: Sequence[bytes], trusted: Sequence[Network]) -> str:
    """Return the nearest hop that is not a trusted proxy.

    `X-Forwarded-For` is read from its end, where the proxies nearest to us wrote. Each trusted hop
    vouches for the one before it. What the client wrote itself comes before the first hop for which
    nobody vouches. If an entry is not an address, the result is the hop that passed it on.
    """
    nearest = _parse(peer)
    if nearest is None:
        return peer
    hops = b",".join(lines).decode("latin-1").split(",") if lines else []
    for hop in reversed(hops):
        if not _is_trusted(nearest, trusted):
            break
        named = _parse(hop)
        if named is None:
            break
        nearest = named
    return str(nearest)


def site(address: str) -> str:
    """Return the addresses that count as one client: an IPv4 address, or an IPv6 /64."""
    parsed = _parse(address)
    return addresses.site(parsed) if parsed else address


def _is_trusted(address: Address | None, trusted: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in trusted)


def _parse(text: str) -> Address | None:
    """Return the address, even if a proxy appended a port; None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        # A zone (RFC 4007 11) means nothing outside its host, and may be text of any length.
        return None if found.scope_id else found.ipv4_mapped or found
    return found
