"""Rules that change while a sandbox lives: what they no longer permit is cut at once."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runner.egress.gateway import EgressGateway
from runner.egress.policy import Policy, Rule
from tests.support.proxying import Way, gateway, way_out

pytestmark = pytest.mark.asyncio(loop_scope="package")
PATIENCE_S = 30.0
KEPT, DROPPED, NEW = "example.test", "other.test", "www.example.test"


@asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    """Run a server that returns what it gets; yield its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Ends:
    """A tunnel as its client has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def echo(self) -> bool:
        """Return whether it still carries bytes both ways."""
        self._writer.write(b"ping")
        try:
            return await asyncio.wait_for(self._reader.readexactly(4), PATIENCE_S) == b"ping"
        except (asyncio.IncompleteReadError, ConnectionError):
            return False

    async def cut(self) -> None:
        """Wait until the proxy has cut it, without a byte from here."""
        try:
            assert await asyncio.wait_for(self._reader.read(), PATIENCE_S) == b""
        except ConnectionError:
            return

    def close(self) -> None:
        """Hang up."""
        self._writer.transport.abort()


class Tunnels:
    """Opens tunnels, and closes them at the end."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._opened: list[Ends] = []

    async def __call__(self, host: str, port: int) -> tuple[bytes, Ends]:
        """Ask for a tunnel; return the answer's first line and both ends."""
        reader, writer = await asyncio.open_unix_connection(str(self._way.path))
        ends = Ends(reader, writer)
        self._opened.append(ends)
        writer.write(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        return head.split(b"\r\n")[0], ends

    def close(self) -> None:
        """Close all."""
        for ends in self._opened:
            ends.close()


@asynccontextmanager
async def hanging_up(way: Way) -> AsyncIterator[Tunnels]:
    """Open tunnels for the context."""
    tunnels = Tunnels(way)
    try:
        yield tunnels
    finally:
        tunnels.close()


def permitting(port: int, *hosts: str) -> Policy:
    """Return a policy for bytes of any kind to these hosts."""
    return Policy(rules=tuple(Rule(host, port, "tcp") for host in hosts))


async def test_a_tunnel_that_is_no_longer_permitted_is_cut(
    proxy: EgressGateway, tmp_path: Path
) -> None:
    """The others stay as they are; without the change, all would."""
    async with (
        echoing() as port,
        way_out(
            proxy, tmp_path, *(rule.name for rule in permitting(port, KEPT, DROPPED).rules)
        ) as way,
        hanging_up(way) as tunnel,
    ):
        session = way.path.stem
        _, kept = await tunnel(KEPT, port)
        _, dropped = await tunnel(DROPPED, port)
        assert await kept.echo() and await dropped.echo()
        await proxy.change_session(session, permitting(port, KEPT, DROPPED, NEW), {})
        assert await kept.echo() and await dropped.echo()
        await proxy.change_session(session, permitting(port, KEPT, NEW), {})
        await dropped.cut()
        assert await kept.echo()
        refused, _ = await tunnel(DROPPED, port)
        assert b" 403 " in refused
        opened, new = await tunnel(NEW, port)
        assert b" 200 " in opened and await new.echo()
        await proxy.change_session(session, Policy(rules=()), {})
        await kept.cut()
        await new.cut()
        counted = await proxy.count_session(session)
        assert (counted.allowed, counted.denied) == (3, 1)
    hosts = [each.host for each in way.told if each.outcome == "allowed"]
    assert sorted(hosts) == sorted([DROPPED, KEPT, NEW])


async def test_a_proxy_that_starts_again_begins_with_the_rules_of_then(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path, KEPT, DROPPED) as proxy,
        echoing() as port,
        way_out(proxy, tmp_path, *(rule.name for rule in permitting(port, KEPT).rules)) as way,
        hanging_up(way) as tunnel,
    ):
        await proxy.change_session(way.path.stem, permitting(port, DROPPED), {})
        before = proxy.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        # Connections wait in the socket's queue until the next proxy is there.
        refused, _ = await tunnel(KEPT, port)
        assert b" 403 " in refused
        opened, ends = await tunnel(DROPPED, port)
        assert b" 200 " in opened and await ends.echo()
        assert proxy.pid != before
