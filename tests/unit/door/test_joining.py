"""Tokens of hosts that join, and how often somebody may try one."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runner.door.joining import (
    JoinToken,
    certification_request,
    digest,
    invited_name,
    requested_key,
)
from runner.fleet.admission import MINUTE_S, Attempts
from runner.words.errors import SetupError

AUTHORITY = bytes(range(32))


@pytest.mark.parametrize("node", ["a", "host-2", "a_b.c-d", "_", "x" * 63])
def test_a_token_is_read_as_it_was_made(node: str) -> None:
    token = JoinToken.make(AUTHORITY, node)
    assert JoinToken.read(str(token)) == token
    assert JoinToken.make(AUTHORITY, node).secret != token.secret


def test_a_token_shows_its_secret_only_when_it_is_printed() -> None:
    token = JoinToken.make(AUTHORITY, "host-2")
    assert token.secret in str(token)
    assert token.secret not in repr(token)
    assert token.secret.encode() not in digest(token.secret)


def test_what_is_no_token_is_refused_and_not_repeated() -> None:
    whole = str(JoinToken.make(AUTHORITY, "host-2"))
    for text in ("", whole[1:], whole[:-7], whole + "/", whole + "\n", "ro" + whole[2:], "é" * 99):
        with pytest.raises(SetupError) as refused:
            JoinToken.read(text)
        assert not text or text not in refused.value.detail


@pytest.mark.parametrize(
    ("node_id", "name"),
    [
        ("host-2-0a1b2c3d", "host-2"),
        ("host-00000000-0a1b2c3d", "host-00000000"),
        ("-0a1b2c3d", None),
        ("host-0A1B2C3D", None),
        ("host-0a1b2c3", None),
        ("ho/st-0a1b2c3d", None),
        ("host-0a1b2c3d\n", None),
    ],
)
def test_an_invitation_names_a_node_without_the_digits_of_its_folder(
    node_id: str, name: str | None
) -> None:
    assert invited_name(node_id) == name


def test_a_request_shows_that_its_maker_holds_the_key() -> None:
    key = Ed25519PrivateKey.generate()
    found = requested_key(certification_request(key))
    assert found == key.public_key()


def test_a_private_key_does_not_travel() -> None:
    """The control: its public key is in the request."""
    key = Ed25519PrivateKey.generate()
    pem = certification_request(key).encode()
    sent = x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER)
    assert key.public_key().public_bytes_raw() in sent
    assert key.private_bytes_raw() not in sent


def test_an_address_may_try_a_few_times_in_a_minute() -> None:
    """Other addresses are not held up by it, and it may try again when the minute is over."""
    attempts = Attempts(per_address=3, in_all=100)
    assert [attempts.allow("192.0.2.1", 0.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert attempts.allow("192.0.2.2", 0.0)
    assert not attempts.allow("192.0.2.1", MINUTE_S - 0.1)
    assert attempts.allow("192.0.2.1", MINUTE_S)


def test_all_addresses_together_may_try_a_bounded_number_of_times() -> None:
    attempts = Attempts(per_address=3, in_all=20)
    tried = [attempts.allow(f"192.0.2.{number}", 0.0) for number in range(200)]
    assert sum(tried) == 20
    assert attempts.allow("192.0.2.1", MINUTE_S)


def test_a_subscriber_of_ipv6_is_one_address() -> None:
    """So is an address of IPv4 that is written as one of IPv6."""
    attempts = Attempts(per_address=1, in_all=100)
    assert attempts.allow("2001:db8::1", 0.0)
    assert not attempts.allow("2001:db8::2", 0.0)
    assert attempts.allow("2001:db8:0:1::1", 0.0)
    assert attempts.allow("::ffff:192.0.2.1", 0.0)
    assert not attempts.allow("192.0.2.1", 0.0)
    assert attempts.allow("fe80::1%eth0", 0.0)
