"""The cost of the egress proxy: throughput and latency beside a direct connection, in one run.

A server on loopback answers small and large requests. A client asks it directly, through the
proxy's HTTP, and through a tunnel, so only the proxy makes a difference. Prints a table and a line
of JSON.
"""

import asyncio
import json
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from runner.base.settings import Settings
from runner.egress.gateway import EgressGateway
from runner.egress.policy import Policy, parse_rule

HOST = "bench.example.test"
LARGE = 256 * 2**20
ROUNDS = 300
_PIECE = 2**20

Dial = Callable[[], socket.socket]


def serve(listener: socket.socket) -> None:
    """Answer `/large` with many bytes and everything else with two."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = LARGE if b"/large" in head.split(b"\r\n")[0] else 2
                # Send head and body of a small answer in one segment: two would wait for each
                # other.
                first = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nok" % size
                writer.write(first)
                for at in range(2, size, _PIECE):
                    writer.write(bytes(min(_PIECE, size - at)))
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def forever() -> None:
        server = await asyncio.start_server(answer, sock=listener)
        await server.serve_forever()

    asyncio.run(forever())


@contextmanager
def server() -> Iterator[int]:
    """Run the server in a process of its own and yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.get_context("fork").Process(target=serve, args=(listener,))
        process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.join()


class Way:
    """One way to the server."""

    def __init__(self, dial: Dial, prefix: str, port: int) -> None:
        self._dial = dial
        self._prefix = prefix
        self._host = f"{HOST}:{port}"

    def ask(self, link: socket.socket, path: str) -> int:
        """Send a request, read the whole answer, and return the size of its body."""
        link.sendall(f"GET {self._prefix}{path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += link.recv(65536)
        head, _, body = head.partition(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        buffer = bytearray(_PIECE)
        left = size - len(body)
        while left:
            left -= link.recv_into(buffer, min(left, _PIECE))
        return size

    def megabytes_per_second(self) -> float:
        """Return the throughput of one large answer."""
        with self._dial() as link:
            began = time.perf_counter()
            size = self.ask(link, "/large")
            return size / 2**20 / (time.perf_counter() - began)

    def new_connections_ms(self) -> list[float]:
        """Return the milliseconds of requests, each on a connection of its own."""
        found = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            with self._dial() as link:
                self.ask(link, "/small")
            found.append((time.perf_counter() - began) * 1000)
        return found

    def kept_alive_ms(self) -> list[float]:
        """Return the milliseconds of requests on one connection."""
        found = []
        with self._dial() as link:
            for _ in range(ROUNDS):
                began = time.perf_counter()
                self.ask(link, "/small")
                found.append((time.perf_counter() - began) * 1000)
        return found


def direct(port: int) -> Dial:
    """Return how to connect to the server itself."""
    return lambda: socket.create_connection(("127.0.0.1", port))


def proxied(path: Path) -> Dial:
    """Return how to connect to the proxy, as a sandbox does."""

    def dial() -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        link.connect(str(path))
        return link

    return dial


def tunnelled(path: Path, port: int) -> Dial:
    """Return how to open a tunnel through the proxy."""

    def dial() -> socket.socket:
        link = proxied(path)()
        link.sendall(f"CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += link.recv(4096)
        return link

    return dial


def measure(way: Way) -> dict[str, float]:
    """Return every figure of one way."""
    new, kept = way.new_connections_ms(), way.kept_alive_ms()
    return {
        "MB/s": max(way.megabytes_per_second() for _ in range(3)),
        "new median ms": statistics.median(new),
        "new p95 ms": statistics.quantiles(new, n=20)[-1],
        "kept median ms": statistics.median(kept),
        "kept p95 ms": statistics.quantiles(kept, n=20)[-1],
    }


async def run(port: int, folder: Path) -> dict[str, dict[str, float]]:
    """Measure all three ways, one after the other."""
    settings = Settings()
    found = {"direct": await asyncio.to_thread(measure, Way(direct(port), "", port))}
    async with EgressGateway.open(
        uid=settings.egress_uid,
        trusted_networks=("127.0.0.0/8",),
        hosts={HOST: "127.0.0.1"},
        roots="",
        profiles_dir=settings.profiles_path,
        state_dir=folder,
    ) as gateway:
        for name, scheme in (("proxy, HTTP", "http"), ("proxy, tunnel", "tcp")):
            path = folder / f"{scheme}.sock"
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen(64)
            listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
            policy = Policy(
                rules=(parse_rule(f"{scheme}://{HOST}:{port}"),),
                max_connections=10**6,
                max_bytes=10**12,
            )
            session = await gateway.open_session(
                scheme, "benchmark", policy, listener, {}, lambda _: None
            )
            way = (
                Way(proxied(path), f"http://{HOST}:{port}", port)
                if scheme == "http"
                else Way(tunnelled(path, port), "", port)
            )
            found[name] = await asyncio.to_thread(measure, way)
            await session.close()
    return found


def main() -> None:
    """Measure and print."""
    with server() as port, tempfile.TemporaryDirectory() as name:
        found = asyncio.run(run(port, Path(name)))
    base = found["direct"]
    figures = list(base)
    table = Table("way", *figures, "throughput", "added, new", "added, kept")
    for name, row in found.items():
        table.add_row(
            name,
            *(f"{row[figure]:.2f}" for figure in figures),
            f"{row['MB/s'] / base['MB/s']:.2f} x",
            f"{row['new median ms'] - base['new median ms']:.2f} ms",
            f"{row['kept median ms'] - base['kept median ms']:.2f} ms",
        )
    Console(width=140).print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
