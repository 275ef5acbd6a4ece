"""Output that is text stays text, wherever it is cut; long output keeps its end on request."""

import pytest

from runner.base.masking import Masker
from runner.node.runs.output import KeptOutput, Piece
from runner.words.resources import MOST_TAIL, OutputKeep, RunBounds
from runner.words.text import is_utf8

LINE = "売上、é, 天气, ไทย, 🎉, plain\n"
SECRET = "geheim-é-天-🎉"  # noqa: S105 - made up


def kept(keep: OutputKeep = "head", output_kb: int = 64) -> KeptOutput:
    """Return an empty stream."""
    return KeptOutput(RunBounds(timeout_s=1, output_kb=output_kb, output_keep=keep))


async def record(
    stream: KeptOutput, data: bytes, *, size: int = 7, cut: bool = False
) -> list[Piece]:
    """Feed the bytes in pieces of this size; return the recorded pieces that are not empty."""
    pieces = [Piece(await stream.feed(data[at : at + size])) for at in range(0, len(data), size)]
    return [piece for piece in (*pieces, *stream.rest(cut=cut)) if piece.chunk]


def joined(pieces: list[Piece]) -> bytes:
    """Return the bytes of all pieces."""
    return b"".join(piece.chunk for piece in pieces)


@pytest.mark.parametrize("secrets", [[], [SECRET]], ids=["plain", "masked"])
@pytest.mark.parametrize("size", range(1, 9))
async def test_text_is_text_in_each_piece(size: int, secrets: list[str]) -> None:
    """This holds for pieces of any size, and where secrets are masked."""
    stream = kept()
    stream.hide(Masker(secrets))
    text = (LINE + SECRET) * 20
    pieces = await record(stream, text.encode(), size=size)
    assert all(is_utf8(piece.chunk) for piece in pieces)
    stars = "*" * len(SECRET.encode())
    assert joined(pieces).decode() == text.replace(SECRET, stars if secrets else SECRET)


async def test_text_is_text_where_secrets_are_starred_without_being_compared() -> None:
    """The secrets begin so often that comparing them would take too long."""
    stream = kept()
    stream.hide(Masker(f"abcdefgh{number:05}" for number in range(2000)))
    text = "." + "abcdefgh" * 1023 + "漢" * 1000
    pieces = await record(stream, text.encode(), size=2**16)
    assert b"*" in joined(pieces)
    assert is_utf8(joined(pieces))


async def test_a_character_that_the_bound_cuts_through_is_left_out_of_text() -> None:
    """Otherwise one cut made all of it base64. Of output that is not text, every byte is kept."""
    stream = kept()
    assert joined(await record(stream, b"x" + "é".encode() + b"\xc3", cut=True)) == "xé".encode()
    assert stream.broken_off
    stream = kept()
    assert joined(await record(stream, b"\xff\xfe\xc3", cut=True)) == b"\xff\xfe\xc3"
    assert not stream.broken_off


async def test_a_program_that_ends_within_a_character_wrote_no_text() -> None:
    """All its bytes are recorded."""
    stream = kept()
    assert joined(await record(stream, b"x\xe5\xa4")) == b"x\xe5\xa4"
    assert not stream.broken_off


async def test_text_after_bytes_that_are_none_is_cut_between_characters() -> None:
    """Only the piece with such a byte is not text."""
    pieces = await record(kept(), b"\xff." + LINE.encode() * 10)
    assert [is_utf8(piece.chunk) for piece in pieces].count(False) == 1


@pytest.mark.parametrize("size", [1, 5, 1000, 70_000])
async def test_both_ends_of_long_output_are_kept(size: int) -> None:
    """Each end has half of the limit, in whole characters; the result says what is missing."""
    data = (LINE * 2000 + "1 failed, 41 passed\n").encode()
    pieces = await record(kept("head_and_tail", output_kb=8), data, size=size)
    (gap,) = [at for at, piece in enumerate(pieces) if piece.omitted]
    head, tail = joined(pieces[:gap]), joined(pieces[gap:])
    assert is_utf8(head)
    assert is_utf8(tail)
    assert data.startswith(head)
    assert data.endswith(tail)
    assert 4096 - 3 <= len(head) <= 4096
    assert 8192 - 6 <= len(head) + len(tail) <= 8192
    assert pieces[gap].omitted == len(data) - len(head) - len(tail)


@pytest.mark.parametrize("output_kb", [1, 8])
async def test_output_within_its_bound_is_kept_whole(output_kb: int) -> None:
    """It is complete, and nothing is reported as missing."""
    data = ("é" * 512 * output_kb).encode()
    pieces = await record(kept("head_and_tail", output_kb), data, size=999)
    assert joined(pieces) == data
    assert not any(piece.omitted for piece in pieces)


async def test_a_secret_across_the_beginning_of_the_tail_is_starred() -> None:
    """The omitted part is masked as well, so the secret's end does not show."""
    stream = kept("head_and_tail", output_kb=1)
    stream.hide(Masker(["0123456789abcdef"]))
    pieces = await record(stream, b"." * 2000 + b"0123456789abcdef" + b"-" * 504)
    assert joined(pieces)[-512:] == b"*" * 8 + b"-" * 504


async def test_the_end_that_is_held_is_bounded() -> None:
    """It has at most a mebibyte, however large the limit of the output is."""
    stream = kept("head_and_tail", output_kb=16 * 1024)
    pieces = await record(stream, b"." * (20 * 2**20), size=2**20)
    (gap,) = [at for at, piece in enumerate(pieces) if piece.omitted]
    assert len(joined(pieces[:gap])) == 15 * 2**20
    assert len(joined(pieces[gap:])) == MOST_TAIL == 2**20
