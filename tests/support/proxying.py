"""A sandbox's side of the egress proxy, and servers behind it that keep all that they receive."""

import asyncio
import contextlib
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from runner.base.settings import project_root
from runner.egress.certificates import Leaves, load_or_make_authority
from runner.egress.gateway import EgressGateway
from runner.egress.policy import Policy, parse_rule
from runner.egress.proxy import Sandbox
from runner.egress.session import Decision, ProxySession
from runner.egress.share import Share, Slots
from runner.egress.upstream import Outside, Timeouts
from runner.network.addresses import networks
from runner.network.lookup import Lookup
from runner.network.roots import read_roots

PATIENCE_S = 5.0
QUIET_S = 0.1
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def heard_until_cut(reader: asyncio.StreamReader, within_s: float = 10) -> bytes:
    """Return what comes until the other end closes, even if it has not read all that it was sent.

    A Unix socket that is closed with unread bytes in it resets the connection.
    """
    heard = b""
    async with asyncio.timeout(within_s):
        with contextlib.suppress(ConnectionResetError):
            while data := await reader.read(65536):
                heard += data
    return heard


@dataclass
class Way:
    """A sandbox's socket, and what the proxy reported about it."""

    path: Path
    told: list[Decision] = field(default_factory=list)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect as a sandbox does."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def say(self, *parts: bytes) -> bytes:
        """Send each part once the previous answer is complete; return the answers."""
        heard = b""
        async with self.connection() as (reader, writer):
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    writer.write(part)
                    heard += await heard_from(reader)
        return heard

    async def say_inside_tls(self, host: str, port: int, ca_pem: str, request: bytes) -> bytes:
        """Make a tunnel with CONNECT, begin TLS in it, and return the answer to the request."""
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=ca_pem)
        async with self.connection() as (reader, writer):
            writer.write(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            if not answer.startswith(b"HTTP/1.1 200"):
                return answer
            await writer.start_tls(context, server_hostname=host)
            writer.write(request)
            return await heard_from(reader)

    @property
    def reasons(self) -> list[str]:
        """The reasons why requests were refused, in order."""
        return [each.reason for each in self.told if each.outcome == "denied"]


async def heard_from(reader: asyncio.StreamReader) -> bytes:
    """Return the bytes that come: wait for the first ones or the end, and then for silence."""
    heard = b""
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(QUIET_S if heard else PATIENCE_S):
                data = await reader.read(65536)
            heard += data
            if not data:
                break
    return heard


@dataclass
class Server:
    """A server that answers each head that it receives, and keeps everything."""

    port: int = 0
    arrived: bytearray = field(default_factory=bytearray)
    connections: int = 0


@asynccontextmanager
async def recording(
    answer: bytes = OK, *, tls: ssl.SSLContext | None = None, keep: bool = True
) -> AsyncIterator[Server]:
    """Run a server on loopback; without `keep` it hangs up after an answer."""
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                server.arrived += data
                if b"\r\n\r\n" in data:
                    writer.write(answer)
                    if not keep:
                        break
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server


@asynccontextmanager
async def gateway(
    folder: Path, *names: str, roots: Path | None = None, trusted: Sequence[str] = ("127.0.0.0/8",)
) -> AsyncIterator[EgressGateway]:
    """Run the real proxy process, which finds these names on loopback."""
    async with EgressGateway.open(
        uid=10002,
        trusted_networks=trusted,
        hosts=dict.fromkeys(names, "127.0.0.1"),
        roots=read_roots(roots),
        profiles_dir=project_root() / "profiles",
        state_dir=folder,
    ) as made:
        yield made


@asynccontextmanager
async def way_out(
    made: EgressGateway,
    folder: Path,
    *rules: str | Mapping[str, Any],
    values: Mapping[str, str] | None = None,
    tenant: str = "tenant",
    **budgets: int,
) -> AsyncIterator[Way]:
    """Open a sandbox's way out by these rules inside the context."""
    way = Way(folder / f"{secrets.token_hex(4)}.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(way.path))
    listener.listen(512)
    listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    session = await made.open_session(
        way.path.stem, tenant, policy(*rules, **budgets), listener, values or {}, way.told.append
    )
    try:
        yield way
    finally:
        await session.close()
        way.path.unlink()


def policy(*rules: str | Mapping[str, Any], **budgets: int) -> Policy:
    """Return the policy that a client wrote."""
    return Policy(rules=tuple(parse_rule(rule) for rule in rules), **budgets)


@asynccontextmanager
async def in_process(
    folder: Path,
    given: Policy,
    *,
    lookup: Lookup | None = None,
    timeouts: Timeouts | None = None,
    share: Share | None = None,
) -> AsyncIterator[Way]:
    """Serve a sandbox's socket in this process, where the test sets patience and lookups.

    Sandboxes of one tenant have the same share.
    """
    outside = Outside(
        lookup=lookup or loopback,
        trusted=networks(["127.0.0.0/8"]),
        tls=ssl.create_default_context(),
        leaves=Leaves(*load_or_make_authority(folder / "ca")),
        timeouts=timeouts or Timeouts(),
    )
    way = Way(folder / f"{secrets.token_hex(4)}.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(way.path))
    listener.listen(512)
    listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    session = ProxySession("in-process", given, {}, way.told.append, share or Share())
    sandbox = Sandbox(session, outside, Slots(100), listener)
    try:
        yield way
    finally:
        await sandbox.close()


async def loopback(_: str) -> Sequence[Any]:
    """Answer every lookup with loopback."""
    return [ip_address("127.0.0.1")]


Speak = Callable[[bytes, int], tuple[bytes, ...]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def inside(host: bytes, port: int, path: bytes = b"/") -> bytes:
    """Return a request as a server receives it."""
    return b"GET %b HTTP/1.1\r\nHost: %b:%d\r\n\r\n" % (path, host, port)


def connect(host: bytes, port: int) -> tuple[bytes, ...]:
    """Ask for a tunnel with CONNECT, and for a page inside it."""
    return b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (host, port), inside(host, port)


def absolute(host: bytes, port: int, path: bytes = b"/") -> tuple[bytes, ...]:
    """Ask a proxy for a page."""
    head = b"GET http://%b:%d%b HTTP/1.1\r\nHost: %b:%d\r\n\r\n"
    return (head % (host, port, path, host, port),)


def socks(host: bytes, port: int) -> tuple[bytes, ...]:
    """Ask for a tunnel with SOCKS5, and for a page inside it."""
    named = b"\x05\x01\x00\x03" + bytes([len(host)]) + host + port.to_bytes(2)
    return b"\x05\x01\x00", named, inside(host, port)


METHODS: Mapping[str, Speak] = {"connect": connect, "http": absolute, "socks5": socks}
