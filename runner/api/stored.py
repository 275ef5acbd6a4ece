"""Bytes of the object store on their way to a client."""

from collections.abc import AsyncIterator


async def begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Wait for the first chunk, and return them all. Raises what the first one raises.

    An answer that has begun can only be cut off if the store fails. One that begins with bytes that
    are there is a 503 if the store refuses them.
    """
    first = await anext(chunks, None)

    async def all_of_them() -> AsyncIterator[bytes]:
        if first is not None:
            yield first
        async for chunk in chunks:
            yield chunk

    return all_of_them()
