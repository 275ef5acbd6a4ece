"""Host names in one spelling, or not at all, for comparison with rules and for lookups."""

import ipaddress
import re

import idna

MAX_LENGTH = 253

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?")
# inet_aton(3) reads all of these as an address: 0x7f.1, 0177.0.0.1, 2130706433.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BadName(ValueError):
    """The text is not a host name that everybody reads in the same way."""


def normalise(host: str) -> str:
    """Return a host name in lower-case A-labels without a trailing dot, or an address's only form.

    An address is IPv4 in four decimal parts, or IPv6 in brackets. Raises BadName for everything
    else: control characters, user information, percent signs, empty and overlong labels, numbers
    that some resolvers read as addresses, zone identifiers.
    """
    if not host or len(host) > 4 * MAX_LENGTH:
        raise BadName("an empty or overlong host name")
    if host.startswith("["):
        return _bracketed(host)
    if any(c <= " " or c in "\x7f%\\/@?#,;:'\"<>^`{|}" for c in host):
        raise BadName("a host name with a character that has no place in one")
    name = host.removesuffix(".")
    try:
        name = name.lower() if name.isascii() else idna.encode(name, uts46=True).decode()
    except idna.IDNAError as error:
        raise BadName(f"not a valid international name: {error}") from None
    labels = name.split(".")
    if len(name) > MAX_LENGTH or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadName("an empty, overlong or malformed label")
    if _NUMERIC.fullmatch(labels[-1]):
        return _dotted(name)
    try:
        for label in labels:
            if label.startswith("xn--"):
                idna.decode(label)
    except idna.IDNAError as error:
        raise BadName(f"not a valid international name: {error}") from None
    return name


def address_in(name: str) -> Address | None:
    """Return the address that a normalised name is, or None if it has to be looked up."""
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


def _dotted(name: str) -> str:
    try:
        return str(ipaddress.IPv4Address(name))
    except ipaddress.AddressValueError:
        raise BadName("a number that is no address in four decimal parts") from None


def _bracketed(host: str) -> str:
    if "%" in host:
        raise BadName("an address with a zone identifier")
    try:
        return f"[{ipaddress.IPv6Address(host.removeprefix('[').removesuffix(']')).compressed}]"
    except ipaddress.AddressValueError:
        raise BadName("brackets without an IPv6 address") from None
