"""The end of an execution cuts its connections off, and they are still recorded."""

import asyncio
import ssl
from pathlib import Path

import pytest

from runner.egress.gateway import EgressGateway
from tests.support.proxying import way_out

pytestmark = pytest.mark.asyncio(loop_scope="package")
HOST = "example.test"
PATIENCE_S = 5.0


def hello() -> bytes:
    """Return how a client begins TLS with the host."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=HOST)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("tunnel", [True, False])
async def test_a_connection_that_is_cut_off_is_told(
    proxy: EgressGateway, tmp_path: Path, *, tunnel: bool
) -> None:
    """An open tunnel, and a request without an answer: each is one decision."""
    reached = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        reached.set()
        await reader.read()
        writer.close()

    upstream = await asyncio.start_server(silent, "127.0.0.1", 0)
    where = f"{HOST}:{upstream.sockets[0].getsockname()[1]}"
    async with upstream:
        async with way_out(proxy, tmp_path, where if tunnel else f"http://{where}") as way:
            reader, writer = await asyncio.open_unix_connection(str(way.path))
            if tunnel:
                writer.write(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
                writer.write(hello())
            else:
                writer.write(f"GET http://{where}/a HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
            await asyncio.wait_for(reached.wait(), PATIENCE_S)
            assert way.told == []
        writer.close()
    (decision,) = way.told
    assert (decision.outcome, decision.host, decision.address) == ("allowed", HOST, "127.0.0.1")
    assert decision.bytes_up > 0


async def test_an_open_tunnel_is_counted_while_it_is_open(
    proxy: EgressGateway, tmp_path: Path
) -> None:
    """Its bytes are known before any decision is told; an unknown session has carried nothing."""
    reached = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        reached.set()
        await reader.read()
        writer.close()

    upstream = await asyncio.start_server(silent, "127.0.0.1", 0)
    where = f"{HOST}:{upstream.sockets[0].getsockname()[1]}"
    async with upstream, way_out(proxy, tmp_path, where) as way:
        assert (await proxy.count_session(way.path.stem)).bytes_up == 0
        _, writer = await asyncio.open_unix_connection(str(way.path))
        writer.write(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
        writer.write(hello())
        await asyncio.wait_for(reached.wait(), PATIENCE_S)
        counts = await asyncio.gather(*(proxy.count_session(way.path.stem) for _ in range(3)))
        assert way.told == []
        assert counts[0].bytes_up > 0
        assert counts[0] == counts[1] == counts[2]
        writer.close()
    assert (await proxy.count_session(way.path.stem)).bytes_up == 0
