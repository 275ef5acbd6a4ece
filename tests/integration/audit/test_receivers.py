"""Slow, rude or endless receivers: what counts as delivered, what does not, how long it takes."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from uuid import UUID

import pytest

from runner.audit.chain import ZERO, Link, link_hash
from runner.audit.delivery import Batch, Undelivered
from runner.audit.outbound import Guard
from runner.audit.syslog import Receiver, Syslog
from runner.audit.webhook import Webhooks
from runner.network.addresses import networks
from runner.network.names import Address
from runner.network.roots import client_context
from tests.support.upstreams import Answer, Authority, serving

HOST = "hooks.example.test"
BODY = '{"action":"execution:end","at":"2026-01-02T03:04:05.000006Z","outcome":"success"}'
LINK = Link(1, BODY, ZERO, link_hash(ZERO, 1, BODY))
BATCH = Batch(UUID(int=7), tuple(replace(LINK, seq=seq) for seq in range(1, 101)))
Serve = Callable[[socket.socket], None]


@contextmanager
def receiving(serve: Serve, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Run a TCP server that serves one connection; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            # The other side decides how the connection ends.
            with (
                suppress(OSError),
                tls.wrap_socket(connection, server_side=True) if tls else connection as stream,
            ):
                serve(stream)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


def guard(trusted: Sequence[str] = ("127.0.0.0/8",)) -> tuple[Guard, list[str]]:
    """Return a guard that resolves every name to loopback, and the names it has looked up."""
    asked: list[str] = []

    async def lookup(name: str) -> Sequence[Address]:
        asked.append(name)
        return [ip_address("127.0.0.1")]

    return Guard(lookup, networks(trusted)), asked


def to_syslog(port: int, *, trusted: Sequence[str] = ("127.0.0.0/8",)) -> Syslog:
    """Return the sink for a receiver on loopback."""
    return Syslog(
        guard(trusted)[0],
        ssl.create_default_context(),
        Receiver("siem.example.test", port, tls=False),
        hostname="node-1",
    )


async def test_syslog_over_tcp_arrives_whole() -> None:
    """A hundred messages arrive, each with its number of octets in front."""
    received = bytearray()

    def serve(connection: socket.socket) -> None:
        while piece := connection.recv(65536):
            received.extend(piece)

    with receiving(serve) as port:
        await to_syslog(port).deliver(BATCH)
        await asyncio.sleep(0)  # The receiver waits until the loop closes the connection.
    assert received.count(b"<110>1 ") == 100


@pytest.mark.parametrize("read", [0, 1000])
async def test_a_syslog_receiver_that_goes_away_has_not_taken_the_batch(read: int) -> None:
    """It goes at once, or in the middle: its host resets what it did not read."""

    def serve(connection: socket.socket) -> None:
        if read:
            connection.recv(read)

    with receiving(serve) as port, pytest.raises(Undelivered) as refused:
        await to_syslog(port).deliver(large())
    assert refused.value.problem == "it closed the connection"


def large() -> Batch:
    """Return a batch that is larger than what sockets buffer."""
    body = BODY.replace('"success"', '"success","text":"' + "x" * 200_000 + '"')
    return replace(BATCH, links=tuple(replace(LINK, seq=n, body=body) for n in range(1, 101)))


async def test_syslog_passes_the_same_guard() -> None:
    """It does not connect to an address that the operator does not trust."""
    with pytest.raises(Undelivered, match="not a public address"):
        await to_syslog(9, trusted=()).deliver(BATCH)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return an authority that the webhooks here trust."""
    return Authority(tmp_path)


async def post(authority: Authority, port: int) -> list[str]:
    """Deliver by HTTPS; return the names that were looked up."""
    guarding, asked = guard()
    webhooks = Webhooks(guarding, client_context(authority.path.read_text()), answer_s=0.5)
    await webhooks.post(f"https://{HOST}:{port}/", b"k" * 32, BATCH)
    return asked


async def test_a_name_is_looked_up_once_for_a_delivery(authority: Authority) -> None:
    """No resolver knows the name, so only the guard can have given the address."""
    with serving(lambda _: Answer(b""), authority.context(HOST)) as upstream:
        assert await post(authority, upstream.port) == [HOST]
    (request,) = upstream.requests
    assert request.headers["Host"] == f"{HOST}:{upstream.port}"


def silent(connection: socket.socket) -> None:
    """Read, and send nothing for longer than anybody waits."""
    time.sleep(2)


def rude(connection: socket.socket) -> None:
    """Answer in no known protocol."""
    connection.recv(1000)
    connection.sendall(b"220 mail.example.test ESMTP\r\n")


def endless_head(connection: socket.socket) -> None:
    """Answer with headers without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: " + b"x" * 4000 + b"\r\n")


REFUSED: dict[str, tuple[Serve, str]] = {
    "silent": (silent, "it did not answer in time"),
    "rude": (rude, "it did not answer in HTTP"),
    "endless head": (endless_head, "it did not answer in HTTP"),
    "gone": (lambda _: None, "it did not answer in HTTP"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_receiver_that_does_not_answer_has_not_taken_the_batch(
    name: str, authority: Authority
) -> None:
    """It costs no more than the configured time, and a bounded amount of memory."""
    serve, problem = REFUSED[name]
    began = time.monotonic()
    with receiving(serve, authority.context(HOST)) as port:
        with pytest.raises(Undelivered) as refused:
            await post(authority, port)
        assert refused.value.problem == problem
        assert time.monotonic() - began < 2
        await asyncio.sleep(0)


async def test_an_answer_without_end_is_not_read(authority: Authority) -> None:
    """The status is enough."""

    def endless(connection: socket.socket) -> None:
        connection.recv(100_000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    began = time.monotonic()
    with receiving(endless, authority.context(HOST)) as port:
        await post(authority, port)
    assert time.monotonic() - began < 2
