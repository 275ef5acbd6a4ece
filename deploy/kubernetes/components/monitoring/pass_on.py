"""Passes connections to one address on to the same port of this host's loopback address.

Usage: pass_on.py ADDRESS PORT. The worker answers Prometheus on loopback alone, which in a pod
nobody else reaches. Who may connect is the NetworkPolicy's decision.
"""

import asyncio
import contextlib
import signal
import sys

LOOPBACK = "127.0.0.1"
MOST_AT_ONCE = 8
"""As many as the worker answers."""
PATIENCE_S = 10.0


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the reader's end, and tell the writer's other end of it."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def serve(address: str, port: int) -> None:
    """Pass connections on, for ever."""
    free = asyncio.Semaphore(MOST_AT_ONCE)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError):
            async with free, asyncio.timeout(PATIENCE_S):
                answers, asks = await asyncio.open_connection(LOOPBACK, port)
                with contextlib.closing(asks):
                    asked = asyncio.ensure_future(copy(reader, asks))
                    try:
                        await copy(answers, writer)
                    finally:
                        asked.cancel()

    async with await asyncio.start_server(pass_on, address, port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    # As the first process of a container, it would not end by SIGTERM of itself (kill(2)).
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
