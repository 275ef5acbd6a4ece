"""The proxy reads ClientHellos: those of a real TLS client, and malformed ones."""

import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.egress.clienthello import BadHello, Hello, parse


def made_by_openssl(name: str | None) -> bytes:
    """Return the first bytes of a real client."""
    # Skip the system's authorities, whose loading takes most of a test's time.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def vector(prefix: int, data: bytes) -> bytes:
    """Return data with its length in front."""
    return len(data).to_bytes(prefix) + data


def sni(name: bytes) -> bytes:
    """Return a server_name extension."""
    return struct.pack(">H", 0) + vector(2, vector(2, b"\0" + vector(2, name)))


def hello(*extensions: bytes, tail: bytes = b"") -> bytes:
    """Return the body of a ClientHello message."""
    body = b"\3\3" + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\0")
    return b"\1" + vector(3, body + vector(2, b"".join(extensions)) + tail)


def records(message: bytes, size: int = 2**14) -> bytes:
    """Return a message in handshake records of at most `size` bytes."""
    return b"".join(
        b"\x16\3\1" + vector(2, message[at : at + size]) for at in range(0, len(message), size)
    )


def test_the_name_a_real_client_asks_for_is_read() -> None:
    """The reader also sees that a client asks for no name."""
    assert parse(made_by_openssl("api.example.com")) == Hello("api.example.com", encrypted=False)
    assert parse(made_by_openssl(None)) == Hello(None, encrypted=False)


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_hello_in_many_records_is_put_together(size: int) -> None:
    """The name may lie across records, and far behind the first kilobyte."""
    padding = struct.pack(">H", 21) + vector(2, bytes(3000))
    message = hello(padding, sni(b"late.example"))
    assert parse(records(message, size)) == Hello("late.example", encrypted=False)


def test_a_part_of_a_hello_is_waited_for() -> None:
    """At every length, the reader waits instead of guessing."""
    whole = made_by_openssl("api.example.com")
    assert all(parse(whole[:n]) is None for n in range(len(whole)))


def test_an_encrypted_hello_is_seen() -> None:
    """The outer name says nothing about the inner one."""
    found = parse(
        records(hello(sni(b"outer.example"), struct.pack(">H", 0xFE0D) + vector(2, b"x")))
    )
    assert found == Hello("outer.example", encrypted=True)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x02\x01\x00\x05\x01",
        b"\x16\x03\x01\xff\xff\x01",
        b"\x17\x03\x01\x00\x05hello",
        records(b"\2" + vector(3, b"x" * 40)),
        records(b"\1" + vector(3, b"x" * 20000)),
        records(b"\1" + vector(3, b"short")),
        records(hello(sni(b"a.example"), sni(b"b.example"))),
        records(hello(sni(b"a.example"), tail=b"x")),
        records(hello(sni(b"a.example")) + b"x"),
        records(hello(struct.pack(">H", 0) + vector(2, vector(2, b"\1" + vector(2, b"a"))))),
        records(
            hello(
                struct.pack(">H", 0)
                + vector(2, vector(2, b"\0" + vector(2, b"a") + b"\0" + vector(2, b"b")))
            )
        ),
        records(hello(sni(b"\xc3\xa9.example"))),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    """It is not TLS, not a ClientHello, has lengths that disagree, or repeats a name."""
    with pytest.raises(BadHello):
        parse(data)


@given(st.binary(max_size=300))
def test_noise_never_breaks_the_reader(noise: bytes) -> None:
    """Whatever comes, the result is an answer, a wait, or a refusal."""
    whole = made_by_openssl("api.example.com")
    for data in (noise, whole[:40] + noise, whole + noise):
        try:
            parse(data)
        except BadHello:
            continue
