"""Addresses to which we may connect: public ones, and those of networks the operator trusts."""

import ipaddress
from collections.abc import Iterable, Sequence

from runner.network.names import Address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ONE_SITE_V6 = 64
"""Bits of an IPv6 address that a subscriber does not choose (RFC 6177, RFC 4291 2.5.1)."""
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""Global unicast (RFC 4291). Outside it are loopback, link-local, unique local, multicast, and
every form that carries an IPv4 address: mapped, compatible, NAT64 (RFC 6052, RFC 8215)."""

_REFUSED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments (RFC 6890)
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks (RFC 2928)
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4: any IPv4 address by another name (RFC 3056)
        "3fff::/20",  # documentation (RFC 9637)
    )
)


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks in the texts. Raises ValueError for a text that is not a network."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def site(address: Address) -> str:
    """Return the addresses that count as one client: an IPv4 address, or an IPv6 /64."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address), ONE_SITE_V6), strict=False))
    return str(address)


def may_connect(address: Address, trusted: Sequence[Network]) -> bool:
    """Return whether we may connect to this address."""
    if _within(address, trusted):
        return True
    if address.version == 6 and address not in _GLOBAL_UNICAST:  # noqa: PLR2004 - IPv6
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not _within(address, _REFUSED)
    )


def _within(address: Address, given: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in given)
