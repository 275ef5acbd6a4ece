"""Long contents, sealed: whatever is done to one, it does not open as something else."""

import os
from collections.abc import AsyncIterator, Callable

import pytest

from runner.secrets.envelope import Unopened, new_key
from runner.secrets.streams import MAGIC, PIECE, TAG, opened, sealed, sealed_size

BOUND = b"snapshot"
WHOLE = PIECE + TAG


async def chunks(content: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield a content in chunks of this size."""
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def seal(content: bytes, key: bytes, *, size: int = 10_000) -> bytes:
    """Return a content sealed."""
    stream = sealed(chunks(content, size), key, bound_to=BOUND)
    return b"".join([piece async for piece in stream])


async def unseal(content: bytes, key: bytes, *, bound_to: bytes = BOUND) -> bytes:
    """Return what was sealed."""
    stream = opened(chunks(content, 7_777), key, bound_to=bound_to)
    return b"".join([piece async for piece in stream])


@pytest.mark.parametrize("length", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 5])
async def test_a_content_opens_as_it_was(length: int) -> None:
    key, content = new_key(), os.urandom(length)
    text = await seal(content, key)
    assert len(text) == sealed_size(length)
    assert await unseal(text, key) == content


def parts(text: bytes) -> list[bytes]:
    """Return the sealed pieces."""
    body = text[len(MAGIC) :]
    return [body[at : at + WHOLE] for at in range(0, len(body), WHOLE)]


def joined(*pieces: bytes) -> bytes:
    """Return pieces as a content."""
    return MAGIC + b"".join(pieces)


@pytest.mark.parametrize(
    "change",
    [
        lambda each: joined(*each[:2], each[2][:-1] + bytes([each[2][-1] ^ 1])),
        lambda each: joined(*each[:2]),
        lambda each: joined(*each, each[2]),
        lambda each: joined(each[0], each[2]),
        lambda each: joined(each[1], each[0], each[2]),
        lambda each: joined(each[0], each[0], each[2]),
        lambda each: joined(*each[:2], each[2][:-5]),
        lambda each: joined(*each) + b"x",
        lambda each: joined(*each)[: len(MAGIC)],
        lambda each: joined(*each)[:5],
        lambda each: joined(*each).replace(MAGIC, b"another/form/2\n\n"),
    ],
)
async def test_a_changed_content_does_not_open(change: Callable[[list[bytes]], bytes]) -> None:
    """Pieces that were changed, cut off, left out, repeated, moved or added."""
    key = new_key()
    text = await seal(os.urandom(2 * PIECE + 100), key)
    assert joined(*parts(text)) == text
    with pytest.raises(Unopened):
        await unseal(change(parts(text)), key)


async def test_a_content_opens_only_by_its_key_and_in_its_place() -> None:
    key = new_key()
    text = await seal(b"content", key)
    with pytest.raises(Unopened):
        await unseal(text, new_key())
    with pytest.raises(Unopened):
        await unseal(text, key, bound_to=b"another")
