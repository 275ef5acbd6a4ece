"""The client's address: what proxies say counts only if the operator trusts them."""

from ipaddress import ip_network

import pytest

from runner.api.edge.address import client_address, site

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))

CASES = {
    "no proxy, nothing said": ("203.0.113.7", [], "203.0.113.7"),
    "a client that pretends": ("203.0.113.7", [b"198.51.100.1"], "203.0.113.7"),
    "a client that pretends to be a proxy": ("203.0.113.7", [b"10.0.0.1"], "203.0.113.7"),
    "behind a proxy": ("10.0.0.1", [b"203.0.113.7"], "203.0.113.7"),
    "behind two": ("10.0.0.1", [b"203.0.113.7, 10.0.0.2"], "203.0.113.7"),
    "behind one, pretending": ("10.0.0.1", [b"1.2.3.4, 203.0.113.7"], "203.0.113.7"),
    "pretending with a trusted name": (
        "10.0.0.1", [b"1.2.3.4, 10.0.0.9, 203.0.113.7"], "203.0.113.7",
    ),
    "pretending in a line of its own": (
        "10.0.0.1", [b"1.2.3.4", b"203.0.113.7"], "203.0.113.7",
    ),
    "nothing said by the proxy": ("10.0.0.1", [], "10.0.0.1"),
    "not an address": ("10.0.0.1", [b"1.2.3.4, unknown"], "10.0.0.1"),
    "a zone of any length": ("10.0.0.1", [b"1.2.3.4, fe80::1%" + b"x" * 9999], "10.0.0.1"),
    "an empty hop": ("10.0.0.1", [b"1.2.3.4,"], "10.0.0.1"),
    "not ASCII": ("10.0.0.1", [b"\xb2.2.3.4"], "10.0.0.1"),
    "with a port": ("10.0.0.1", [b"203.0.113.7:4711"], "203.0.113.7"),
    "IPv6": ("fd00::1", [b"2001:db8::7"], "2001:db8::7"),
    "IPv6 with a port": ("fd00::1", [b"[2001:db8::7]:4711"], "2001:db8::7"),
    "IPv4 inside IPv6": ("::ffff:10.0.0.1", [b"::ffff:203.0.113.7"], "203.0.113.7"),
    "proxies all the way": ("10.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_client_is_the_nearest_hop_that_nobody_vouches_for(name: str) -> None:
    peer, lines, client = CASES[name]
    assert client_address(peer, lines, PROXIES) == client


def test_with_nobody_trusted_nothing_said_counts() -> None:
    for peer, lines, _ in CASES.values():
        assert client_address(peer, lines, ()) == client_address(peer, [], ())


def test_one_subscriber_is_one_site() -> None:
    """An IPv6 client has 2**64 addresses to choose from."""
    assert site("2001:db8::1") == site("2001:db8::ffff:1") == "2001:db8::/64"
    assert site("2001:db8:0:1::1") != site("2001:db8::1")
    assert site("203.0.113.7") == "203.0.113.7"
    assert site("not an address") == "not an address"
