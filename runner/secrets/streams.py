"""Long contents, sealed and opened piece by piece with AES-256-GCM.

Each content has a key of its own. Its pieces are numbered by their nonces, and the last one is
marked: so none can be changed, left out, repeated or moved, and the end cannot be cut off. This is
the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár, 2015).
"""

from collections.abc import AsyncIterable, AsyncIterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runner.secrets.envelope import Unopened

PIECE = 64 * 1024
TAG = 16
MAGIC = b"runner/sealed/1\n"
"""The first bytes of a sealed content, so that another form can follow."""


def sealed_size(plain: int) -> int:
    """Return how many bytes a content of this length takes when it is sealed."""
    pieces = max(1, -(-plain // PIECE))
    return len(MAGIC) + plain + pieces * TAG


async def sealed(
    chunks: AsyncIterable[bytes], key: bytes, *, bound_to: bytes
) -> AsyncIterator[bytes]:
    """Yield the content sealed. No other content may ever be sealed with this key."""
    cipher = AESGCM(key)
    number = 0
    yield MAGIC
    async for piece, last in _pieces(chunks, PIECE):
        yield cipher.encrypt(_nonce(number, last=last), piece, bound_to)
        number += 1


async def opened(
    chunks: AsyncIterable[bytes], key: bytes, *, bound_to: bytes
) -> AsyncIterator[bytes]:
    """Yield a content that was sealed. Raises Unopened where it is not what was sealed.

    What was yielded until then was sealed so.
    """
    cipher = AESGCM(key)
    number = 0
    async for piece, last in _pieces(_after_magic(chunks), PIECE + TAG):
        try:
            yield cipher.decrypt(_nonce(number, last=last), piece, bound_to)
        except (InvalidTag, ValueError):
            raise Unopened from None
        number += 1


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


async def _after_magic(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    begun = bytearray()
    passed = False
    async for chunk in chunks:
        if passed:
            yield chunk
            continue
        begun += chunk
        if len(begun) >= len(MAGIC):
            if not begun.startswith(MAGIC):
                raise Unopened
            passed = True
            yield bytes(begun[len(MAGIC) :])
    if not passed:
        raise Unopened


async def _pieces(chunks: AsyncIterable[bytes], size: int) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield pieces of this size, and whether each is the last one, which may be shorter."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        # The last piece is known only at the end.
        while len(waiting) > size:
            yield bytes(waiting[:size]), False
            del waiting[:size]
    yield bytes(waiting), True
