"""The bridge inside a sandbox: what a program sends to port 3128 arrives at its own socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runner.sandbox.drive import ProgramRun, use
from runner.sandbox.guest.sandbox import Bridge, Sandbox
from runner.words.execution import Program, Stream
from tests.support.sandboxes import Bench


@asynccontextmanager
async def echoing(sandbox: Sandbox) -> AsyncIterator[None]:
    """Answer every byte that arrives at the sandbox's egress socket with itself."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(echo, sock=sandbox.listen_for_egress())
    async with server:
        yield


OPEN = Bridge()


async def run(bench: Bench, code: str, bridge: Bridge | None = OPEN) -> ProgramRun:
    """Run a program with a bridge to an echo."""
    async with bench.sandbox() as sandbox, echoing(sandbox):
        return await use(
            sandbox, Program(("python3", "-c", code), {}), bench.limits.bounds, bridge=bridge
        )


CONNECT = "import socket\nlink = socket.create_connection(('127.0.0.1', 3128))\n"


async def test_bytes_and_ends_travel_both_ways(bench: Bench) -> None:
    """Megabytes arrive whole, and each side learns of the other's end."""
    ran = await run(
        bench,
        CONNECT
        + """
import hashlib, os, threading
sent = os.urandom(8_000_000)
threading.Thread(target=lambda: (link.sendall(sent), link.shutdown(socket.SHUT_WR))).start()
got = b''.join(iter(lambda: link.recv(65536), b''))
print(got == sent)
""",
    )
    assert ran.stdout == b"True\n", ran.stderr


async def test_many_connections_are_carried_side_by_side(bench: Bench) -> None:
    """One that nobody reads does not hold up the others."""
    ran = await run(
        bench,
        """
import socket
links = [socket.create_connection(('127.0.0.1', 3128)) for _ in range(40)]
links[0].setblocking(False)
try:
    while True: links[0].send(bytes(65536))
except BlockingIOError: pass
for n, link in enumerate(links[1:]): link.sendall(b'%d' % n)
print(all(int(link.recv(9)) == n for n, link in enumerate(links[1:])))
""",
    )
    assert ran.stdout == b"True\n", ran.stderr


async def test_connections_beyond_the_bound_wait(bench: Bench) -> None:
    """They are accepted when others end; the supervisor's descriptors do not run out."""
    ran = await run(
        bench,
        """
import socket
links = [socket.create_connection(('127.0.0.1', 3128)) for _ in range(128)]
for link in links: link.sendall(b'x'); link.recv(1)
late = socket.create_connection(('127.0.0.1', 3128))
late.settimeout(0.3)
late.sendall(b'x')
try: print(late.recv(1))
except TimeoutError: print('waits')
links.pop().close()
late.settimeout(5)
print(late.recv(1))
""",
    )
    assert ran.stdout == b"waits\nb'x'\n", ran.stderr


async def test_without_a_bridge_nothing_listens(bench: Bench) -> None:
    """An execution without egress has neither port nor socket."""
    ran = await run(bench, CONNECT, bridge=None)
    assert b"ConnectionRefusedError" in ran.stderr


async def test_a_dead_proxy_is_a_refused_connection(bench: Bench) -> None:
    """With nobody behind the socket, the connection ends at once and the run continues."""
    async with bench.sandbox() as sandbox:
        sandbox.listen_for_egress().close()
        program = Program(("python3", "-c", CONNECT + "print(link.recv(1))"), {})
        ran = await use(sandbox, program, bench.limits.bounds, bridge=Bridge())
    assert ran.stdout == b"b''\n" or b"Connection" in ran.stderr


async def test_the_bridge_ends_with_the_run(bench: Bench) -> None:
    """Its connections are cut, so that the proxy learns of the end."""
    async with bench.sandbox() as sandbox:
        cut = asyncio.Event()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            cut.set()
            writer.close()

        server = await asyncio.start_unix_server(hold, sock=sandbox.listen_for_egress())
        async with server:
            program = Program(("python3", "-c", CONNECT + "link.sendall(b'x')"), {})
            await use(sandbox, program, bench.limits.bounds, bridge=Bridge())
            await asyncio.wait_for(cut.wait(), 5)


async def test_the_bridge_does_not_count_against_the_programs_processes(bench: Bench) -> None:
    """It lives in the supervisor, so there is nothing to kill or to trace."""
    ran = await run(
        bench, "import os; print(sorted(p for p in os.listdir('/proc') if p.isdigit()))"
    )
    assert ran.stdout.count(b"'") == 4


async def test_given_certificates_join_those_of_the_system(bench: Bench) -> None:
    """They are in one file, to which the environment can point."""
    ran = await run(
        bench,
        "text = open('/tmp/.egress/trusted.pem').read()\n"
        "print(text.count('BEGIN CERTIFICATE') > 50, text.endswith('MINE'))",
        Bridge(trust="MINE"),
    )
    assert ran.stdout == b"True True\n", ran.stderr


@pytest.mark.parametrize("stream", list(Stream))
async def test_output_and_bridge_share_the_supervisor_fairly(bench: Bench, stream: Stream) -> None:
    """A flood of output does not stop the bridge."""
    ran = await run(
        bench,
        CONNECT
        + f"""
import sys, threading
def flood():
    for _ in range(200): sys.{stream}.write('x' * 65536)
threading.Thread(target=flood).start()
for _ in range(50): link.sendall(b'x'); assert link.recv(1)
""",
    )
    assert ran.ending.exit_code == 0, ran.stderr[-500:]
