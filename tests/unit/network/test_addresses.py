"""The addresses to which the proxy connects."""

from ipaddress import ip_address

import pytest

from runner.network.addresses import may_connect, networks

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1", "2a00:1450:4001::1"]

REFUSED = {
    "loopback": ["127.0.0.1", "127.255.0.1", "::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],  # noqa: S104 - refused, not bound
    "private": ["10.0.0.1", "172.16.0.1", "192.168.1.1", "fd00::1", "fc00::1"],
    "shared": ["100.64.0.1"],
    "link-local": ["169.254.0.1", "fe80::1"],
    "metadata": ["169.254.169.254", "fd00:ec2::254", "100.100.100.200"],
    "multicast": ["224.0.0.1", "239.1.1.1", "ff02::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "benchmark": ["198.18.0.1", "2001:2::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.0.8", "5f00::1", "4000::1"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "::127.0.0.1"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1"],
    "6to4": ["2002:7f00:1::", "2002:808:808::1", "192.88.99.1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "site-local": ["fec0::1"],
    "discard": ["100::1"],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_reached(address: str) -> None:
    """These are the addresses that the internet routes."""
    assert may_connect(ip_address(address), ())


@pytest.mark.parametrize(
    "address", [address for each in REFUSED.values() for address in each]
)  # fmt: skip
def test_every_other_address_is_refused_unless_trusted(address: str) -> None:
    """This holds for every kind; the operator's own networks are the exception."""
    parsed = ip_address(address)
    assert not may_connect(parsed, ())
    assert not may_connect(parsed, networks(["192.168.77.0/24", "fd77::/64"]))
    assert may_connect(parsed, networks([f"{address}/{parsed.max_prefixlen}"]))
