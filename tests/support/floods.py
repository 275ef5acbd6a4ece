"""A hostile tenant of the egress proxy: a server that floods, and programs that ask it.

It runs as a process of its own (`python -m tests.support.floods KIND`), so that its work does not
count as the test's. It prints the port of its server, reads the path of a sandbox's socket, and
floods until it is killed. It prints a line when the first program has asked.
"""

import asyncio
import contextlib
import ssl
import sys
from dataclasses import dataclass

HOST = "flood.test"
CONNECTIONS = 48
_PIECE = 256 * 1024
_FEW = 2000
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def repeated(unit: bytes) -> bytes:
    """Return as many of these as fit into a piece."""
    return unit * (_PIECE // len(unit))


@dataclass(frozen=True)
class Flood:
    """The server's first words, those that it repeats without end, and how the programs ask."""

    first: bytes = b""
    then: bytes = b""
    scheme: str = "http"
    asks: bytes = b"GET http://{}/ HTTP/1.1\r\nHost: {}\r\n\r\n"
    again: bool = False
    """Whether a program asks again on the same connection after an answer."""
    hangs_up: bool = False
    """Whether a program hangs up as soon as it has asked, and comes back."""


FLOODS = {
    "interim answers": Flood(then=repeated(b"HTTP/1.1 102 \r\n\r\n")),
    "tiny chunks": Flood(_CHUNKED, repeated(b"1\r\nx\r\n")),
    "chunk extensions": Flood(_CHUNKED, repeated(b"1;" + b"e" * 200 + b"\r\nx\r\n")),
    "fields": Flood(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + b"a:\r\n" * 15_000 + b"\r\n", again=True
    ),
    "trailers": Flood(_CHUNKED + b"0\r\n" + b"a:\r\n" * 15_000 + b"\r\n", again=True),
    "small answers": Flood(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", again=True),
    "refusals": Flood(
        asks=b"GET http://elsewhere.test/ HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n", hangs_up=True
    ),
    "connections": Flood(asks=b"", hangs_up=True),
    "single bytes": Flood(then=b"x", scheme="tcp", asks=b"CONNECT {} HTTP/1.1\r\nHost: {}\r\n\r\n"),
    "large pieces": Flood(
        then=bytes(_PIECE), scheme="tcp", asks=b"CONNECT {} HTTP/1.1\r\nHost: {}\r\n\r\n"
    ),
    "TLS records": Flood(
        _CHUNKED, b"1\r\nx\r\n" * 10, "https", b"GET / HTTP/1.1\r\nHost: {}\r\n\r\n"
    ),
}


async def answering(
    flood: Flood, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer one connection."""
    with contextlib.suppress(OSError):
        if flood.scheme != "tcp":
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(flood.first)
                await writer.drain()
                if not flood.again:
                    break
        while flood.then:
            if flood.scheme == "https":
                for byte in flood.then:
                    writer.write(bytes([byte]))
            else:
                writer.write(flood.then)
            await writer.drain()
            if len(flood.then) == 1:
                await asyncio.sleep(0)
        await reader.read()
    writer.close()


async def asking(flood: Flood, path: str, port: int, ca: str, under_way: asyncio.Event) -> None:
    """Play one connection of the hostile program, over and over."""
    where = f"{HOST}:{port}".encode()
    said = flood.asks.replace(b"{}", where)
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                if flood.scheme == "https":
                    writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (where, where))
                    await reader.readuntil(b"\r\n\r\n")
                    await writer.start_tls(
                        ssl.create_default_context(cafile=ca), server_hostname=HOST
                    )
                writer.write(said)
                under_way.set()
                while not flood.hangs_up and await reader.read(_PIECE):
                    if flood.again:
                        writer.write(said)
                    elif flood.scheme == "tcp":
                        writer.write(b"x")
                        await asyncio.sleep(0)
            finally:
                writer.transport.abort()
        await asyncio.sleep(0 if flood.hangs_up else 0.01)


async def main(kind: str, certificate: str, ca: str) -> None:
    """Flood until killed."""
    flood = FLOODS[kind]
    context = None
    if flood.scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await answering(flood, reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    under_way = asyncio.Event()
    path = await asyncio.to_thread(sys.stdin.readline)
    async with asyncio.TaskGroup() as programs:
        for _ in range(CONNECTIONS):
            programs.create_task(asking(flood, path.strip(), port, ca, under_way))
        await under_way.wait()
        sys.stdout.write("under way\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
