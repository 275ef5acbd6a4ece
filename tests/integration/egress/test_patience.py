"""How long the proxy waits: for heads, for bytes, for silent servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runner.egress.session import Decision
from runner.egress.upstream import Timeouts
from tests.support.proxying import Serve, heard_until_cut, in_process, policy

HOST = "slow.example.test"


@asynccontextmanager
async def proxy(
    tmp_path: Path, server: Serve, scheme: str = "http"
) -> AsyncIterator[tuple[Path, int, list[Decision]]]:
    """Serve a sandbox's socket with little patience, in front of a server that behaves as given."""
    upstream = await asyncio.start_server(server, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    timeouts = Timeouts(head_s=0.3, connect_s=0.3, idle_s=0.4)
    rules = policy(f"{scheme}://{HOST}:{port}")
    async with upstream, in_process(tmp_path, rules, timeouts=timeouts) as way:
        yield way.path, port, way.told


async def ended_after(path: Path, said: bytes) -> tuple[float, bytes]:
    """Send this, and return how long the connection lasted and what came back."""
    clock = asyncio.get_running_loop()
    reader, writer = await asyncio.open_unix_connection(str(path))
    began = clock.time()
    writer.write(said)
    heard = await heard_until_cut(reader)
    writer.close()
    return clock.time() - began, heard


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read everything and send nothing."""
    while await reader.read(65536):
        pass
    writer.close()


async def test_a_client_that_says_nothing_is_cut_off(tmp_path: Path) -> None:
    """It begins neither HTTP nor SOCKS."""
    async with proxy(tmp_path, silent) as (path, _, _):
        seconds, heard = await ended_after(path, b"")
    assert heard == b""
    assert seconds < 3


async def test_a_head_that_trickles_is_cut_off(tmp_path: Path) -> None:
    """The complete head has one time limit, however many pieces it comes in."""
    async with proxy(tmp_path, silent) as (path, port, _):
        reader, writer = await asyncio.open_unix_connection(str(path))

        async def trickle() -> None:
            for byte in b"GET http://%b:%d/" % (HOST.encode(), port) + b"x" * 1000:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        heard = await heard_until_cut(reader)
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)
        writer.close()
    assert heard == b""


async def test_a_head_without_end_is_refused(tmp_path: Path) -> None:
    """It is also bounded in bytes."""
    async with proxy(tmp_path, silent) as (path, port, told):
        start = b"GET http://%b:%d/ HTTP/1.1\r\nX: " % (HOST.encode(), port)
        _, heard = await ended_after(path, start + b"x" * 200_000)
    assert heard.startswith(b"HTTP/1.1 400")
    assert told[0].reason == "bad_request"


async def test_a_server_that_is_silent_is_given_up(tmp_path: Path) -> None:
    """The agent is told, and the record says what happened."""
    async with proxy(tmp_path, silent) as (path, port, told):
        request = b"GET http://%b:%d/ HTTP/1.1\r\nHost: %b:%d\r\n\r\n"
        host = HOST.encode()
        _, heard = await ended_after(path, request % (host, port, host, port))
    assert heard.startswith(b"HTTP/1.1 502")
    assert told[0].reason == "unreachable"


async def test_a_tunnel_that_nobody_uses_is_cut(tmp_path: Path) -> None:
    """Both directions are silent."""
    async with proxy(tmp_path, silent, "tcp") as (path, port, told):
        seconds, heard = await ended_after(
            path, b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (HOST.encode(), port)
        )
    assert heard.startswith(b"HTTP/1.1 200")
    assert seconds < 3
    assert told[0].outcome == "allowed"


async def test_one_direction_may_be_silent_while_the_other_is_not(tmp_path: Path) -> None:
    """A long download is not an idle tunnel."""

    async def download(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(12):
            writer.write(b"x" * 1000)
            await writer.drain()
            await asyncio.sleep(0.1)
        writer.close()
        assert reader is not None

    async with proxy(tmp_path, download, "tcp") as (path, port, _):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (HOST.encode(), port))
        heard = b""
        while data := await asyncio.wait_for(reader.read(65536), 10):
            heard += data
        writer.close()
    assert heard.partition(b"\r\n\r\n")[2] == b"x" * 12_000
