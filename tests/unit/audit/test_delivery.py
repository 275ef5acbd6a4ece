"""A delivery has a body and a permitted destination, without a network."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from ipaddress import ip_address
from uuid import UUID

import pytest

from runner.audit import webhook
from runner.audit.chain import ZERO, Link, link_hash
from runner.audit.delivery import Batch, Undelivered
from runner.audit.outbound import Guard
from runner.audit.syslog import Receiver, framed, message
from runner.network.addresses import networks
from runner.network.names import Address
from runner.words.errors import SetupError

TENANT = UUID(int=7)
BODY = '{"action":"access:denied","at":"2026-01-02T03:04:05.000006Z","outcome":"denied","text":"ü"}'
LINK = Link(3, BODY, ZERO, link_hash(ZERO, 3, BODY))
BATCH = Batch(TENANT, (LINK,))


def test_a_delivery_is_signed_over_its_id_time_and_body() -> None:
    """The test computes the signature as any receiver of Standard Webhooks does."""
    secret = webhook.new_secret()
    body = webhook.payload(BATCH)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = hmac.new(key, b"id.1700000000." + body, hashlib.sha256).digest()
    signed = webhook.sign(webhook.key_of(secret), "id", 1_700_000_000, body)
    assert signed == "v1," + base64.b64encode(expected).decode()
    assert len(key) == 32


def test_what_is_posted_is_json_with_the_records_as_an_export_has_them() -> None:
    """A receiver that keeps them can verify the chain."""
    sent = json.loads(webhook.payload(BATCH))
    assert sent == {
        "tenant": str(TENANT),
        "records": [
            {"seq": 3, "hash": LINK.hash.hex(), "previous_hash": "0" * 64,
             "record": json.loads(BODY)},
        ],
    }  # fmt: skip


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "whsec_***", "A" * 44])
def test_a_weak_secret_is_refused(secret: str) -> None:
    """This concerns the operator's own secrets; we make all others."""
    with pytest.raises(ValueError, match="whsec_"):
        webhook.key_of(secret)


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("https://example.com", ("example.com", 443, "/")),
        ("https://EXAMPLE.com:8443/a/b?c=d", ("example.com", 8443, "/a/b?c=d")),
        ("https://[2606:4700::1]/x", ("[2606:4700::1]", 443, "/x")),
        ("https://example.com.?q", ("example.com", 443, "/?q")),
    ],
)
def test_addresses_that_may_be_a_webhooks(url: str, parsed: tuple[str, int, str]) -> None:
    """Host, port and target are read from the address."""
    assert webhook.parse_url(url) == parsed


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com", "ftp://example.com", "example.com", "https://", "https:///x",
        "https://user@example.com", "https://user:pw@example.com", "https://example.com@10.0.0.1",
        "https://example.com#@10.0.0.1", "https://example.com\\@10.0.0.1", "https://exa mple.com",
        "https://example.com/\r\nX: y", "https://2130706433/", "https://0x7f.1/", "https://127.1/",
        "https://[fe80::1%25eth0]/", "https://[::1", "https://example.com:0x50/",
        "https://example.com:99999/", "https://ex%61mple.com/", "https://exämple.com/",
        "https://example.com/" + "x" * 3000,
    ],
)  # fmt: skip
def test_addresses_that_may_mean_two_things_are_refused(url: str) -> None:
    """Addresses that mean nothing, or something else than HTTPS, are refused, too."""
    with pytest.raises(ValueError, match=r"must|host"):
        webhook.parse_url(url)


def guard(*addresses: str, trusted: Sequence[str] = ()) -> tuple[Guard, list[str]]:
    """Return a guard for a name with these addresses, and a list of the names that it looks up."""
    asked: list[str] = []

    async def lookup(name: str) -> Sequence[Address]:
        asked.append(name)
        return [ip_address(each) for each in addresses]

    return Guard(lookup, networks(trusted)), asked


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",  # noqa: S104
     "::1", "fd00::1", "fe80::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1"],
)  # fmt: skip
async def test_a_name_at_a_private_address_is_refused(address: str) -> None:
    """This holds for every spelling; the tenant does not learn which address it is."""
    guarding, _ = guard(address)
    with pytest.raises(Undelivered) as refused:
        await guarding.resolve("hooks.example.com", 443)
    assert refused.value.problem == "its host name is not at a public address"
    assert address not in refused.value.problem


async def test_a_name_is_looked_up_once_and_private_addresses_are_left_out() -> None:
    """The connection goes to an address that was decided on."""
    guarding, asked = guard("10.0.0.1", "93.184.215.14")
    target = await guarding.resolve("hooks.example.com", 443)
    assert [str(each) for each in target.addresses] == ["93.184.215.14"]
    assert asked == ["hooks.example.com"]


async def test_the_operators_trusted_networks_are_let_through() -> None:
    """No other private network is permitted."""
    guarding, _ = guard("10.2.0.9", trusted=["10.2.0.0/16"])
    assert (await guarding.resolve("siem.internal", 6514)).port == 6514
    guarding, _ = guard("10.3.0.9", trusted=["10.2.0.0/16"])
    with pytest.raises(Undelivered):
        await guarding.resolve("siem.internal", 6514)


def test_a_syslog_message_is_rfc_5424_framed_by_its_length() -> None:
    """It has facility 13 (log audit), a warning if the action failed, and its number of octets."""
    sent = message(BATCH, LINK, hostname="node-1")
    assert sent.startswith(
        b"<108>1 2026-01-02T03:04:05.000006Z node-1 agent-runner - access:denied "
        b'[audit@32473 tenant="00000000-0000-0000-0000-000000000007" seq="3"] {"hash":"'
    )
    length, _, rest = framed(sent).partition(b" ")
    assert int(length) == len(rest) == len(sent)
    assert "ü".encode() in rest


@pytest.mark.parametrize(
    "url", ["udp://h:1", "tcp://h", "tcp://:1", "tls://h:0", "tcp://u@h:1", "tcp://h:1/x", "h:1"]
)
def test_a_syslog_address_names_host_and_port(url: str) -> None:
    """Any other form ends the worker when it starts."""
    with pytest.raises(SetupError, match="RUNNER_AUDIT_SYSLOG_URL"):
        Receiver.parse(url)
    assert Receiver.parse("tls://siem.internal:6514") == Receiver("siem.internal", 6514, tls=True)
