"""Streams that say something now and then, so that nobody on the way takes them for dead."""

import asyncio
from collections.abc import AsyncIterator, Callable

PING_S = 15.0


async def kept_alive(
    pieces: AsyncIterator[bytes], ping: bytes, *, within: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Yield pieces as they come, and a ping while none do, unless that would be `within` one."""
    following: asyncio.Future[bytes] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(pieces))
            await asyncio.wait({following}, timeout=PING_S)
            if following.done():
                try:
                    piece = following.result()
                except StopAsyncIteration:
                    return
                following = None
                yield piece
            elif not within():
                yield ping
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
