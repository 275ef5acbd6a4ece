"""The coding gzip of bodies (RFC 9110 8.4.1.3, RFC 1952), piece by piece and bounded."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

GZIP = "gzip"
PIECE = 256 * 1024
"""How many bytes one piece of a compressed body may become at once."""
MAX_MEMBERS = 16
"""How many members one after the other a body may have. Clients send one."""
INLINE = 1024
"""Compressed bytes that are unpacked where they come; a thread unpacks more."""
_WINDOW = zlib.MAX_WBITS | 16
_FAST = 1


class Undecodable(ValueError):
    """A body is not in the coding that its head names, or becomes too long."""


async def unpacked(
    body: AsyncIterator[bytes], most: int, pay: Callable[[int], Awaitable[None]]
) -> AsyncIterator[bytes]:
    """Yield what a body in gzip holds: at most `most` bytes, each of which `pay` is told before.

    The event loop goes on between two pieces, whether their reader lets it or not. Raises
    Undecodable, and what `pay` raises.
    """
    inflate, left, members = zlib.decompressobj(_WINDOW), most, 1
    async for waiting in body:
        while True:
            try:
                piece = await _inflated(inflate, waiting)
            except zlib.error as error:
                raise Undecodable(f"the body is not gzip: {error}") from None
            waiting = inflate.unconsumed_tail  # noqa: PLW2901 - what is left of it
            if (left := left - len(piece)) < 0:
                raise Undecodable(f"the body holds more than {most} bytes once it is unpacked")
            if piece:
                await pay(len(piece))
                yield piece
            if inflate.unused_data:
                # One member follows another (RFC 1952 2.2).
                if (members := members + 1) > MAX_MEMBERS:
                    raise Undecodable(f"the body has more than {MAX_MEMBERS} members of gzip")
                waiting = inflate.unused_data  # noqa: PLW2901
                inflate = zlib.decompressobj(_WINDOW)
            elif not waiting and len(piece) < PIECE:
                break
    if not inflate.eof:
        raise Undecodable("the body ends inside its gzip")


async def _inflated(inflate: "zlib._Decompress", waiting: bytes) -> bytes:
    if len(waiting) > INLINE:
        return await asyncio.to_thread(inflate.decompress, waiting, PIECE)
    await asyncio.sleep(0)
    return inflate.decompress(waiting, PIECE)


async def packed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield bytes in gzip. A thread packs them, so that the event loop goes on."""
    deflate = zlib.compressobj(_FAST, wbits=_WINDOW)
    async for chunk in chunks:
        if piece := await asyncio.to_thread(deflate.compress, chunk):
            yield piece
    yield deflate.flush()
