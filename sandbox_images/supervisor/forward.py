"""Gives a program that knows no proxy a local port for a host outside: a database, say.

    python3 /opt/supervisor/forward.py db.example.com:5432 -- psql -h localhost …

listens on 127.0.0.1:5432, runs the command and ends with it; without a command it serves until it
is ended. `15432:db.example.com:5432` takes another local port. Run by programs in the sandbox, with
no rights but theirs: each connection asks the egress proxy for a tunnel, as any other does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

PROXY = ("127.0.0.1", 3128)
PIECE = 64 * 1024
MAX_HEAD = 16 * 1024
USAGE = "usage: forward.py [LOCAL_PORT:]HOST:PORT … [-- COMMAND …]"


class Forward:
    """One local port, and where its connections lead."""

    def __init__(self, text: str) -> None:
        """Take `host:port` or `local:host:port`; an IPv6 address in brackets."""
        target, _, port = text.rpartition(":")
        first, separator, rest = target.partition(":")
        local = port
        if separator and first.isdigit():
            local, target = first, rest
        if not target or not port.isdigit() or not local.isdigit():
            raise ValueError(text)
        self.local, self.target = int(local), f"{target}:{port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        try:
            inner, outer = await self._tunnel()
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            tell(f"forward.py: {self.target}: {error}")
            writer.close()
            return
        await asyncio.gather(carry(reader, outer), carry(inner, writer))
        for each in (writer, outer):
            each.close()

    async def _tunnel(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*PROXY, limit=MAX_HEAD)
        writer.write(f"CONNECT {self.target} HTTP/1.1\r\nHost: {self.target}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")[2]
        if not status.startswith("200"):
            writer.close()
            raise ConnectionRefusedError(status)
        return reader, writer


def tell(text: str) -> None:
    """Tell whoever runs this."""
    sys.stderr.write(f"{text}\n")


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one direction to its end, and pass the end on."""
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def main(arguments: list[str]) -> int:
    """Listen, and run the command; return the exit code."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    try:
        forwards = [Forward(text) for text in arguments[:at]]
    except ValueError as error:
        tell(f"forward.py: {error} is not HOST:PORT\n{USAGE}")
        return 2
    command = arguments[at + 1 :]
    if not forwards:
        tell(USAGE)
        return 2
    for each in forwards:
        await asyncio.start_server(each.serve, "127.0.0.1", each.local)
    if not command:
        await asyncio.get_running_loop().create_future()
    code = await (await asyncio.create_subprocess_exec(*command)).wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
