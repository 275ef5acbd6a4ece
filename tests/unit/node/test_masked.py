"""A process's output with secrets masked, read from any byte on."""

import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import TypeAlias, cast

import pytest

from runner.base.masking import Masker
from runner.node.residents import masked as masked_module
from runner.node.residents.masked import before, gathered, masked
from runner.sandbox.guest.processes import Attached
from runner.words.execution import Stream
from runner.words.living import OutputGap, OutputPiece

Output: TypeAlias = AsyncIterator[OutputPiece | OutputGap]

SECRET = "sk-4f9c2a7e81d3b650"  # noqa: S105 - a test's
OUT, ERR = Stream.STDOUT, Stream.STDERR


async def written(
    pieces: Sequence[OutputPiece | OutputGap],
) -> AsyncIterator[OutputPiece | OutputGap]:
    for piece in pieces:
        yield piece


async def read(
    pieces: Sequence[OutputPiece | OutputGap], masker: Masker, offset: int = 0
) -> list[OutputPiece | OutputGap]:
    spent: list[float] = []
    found = [each async for each in masked(written(pieces), masker, offset, charge=spent.append)]
    assert len(spent) == (len(pieces) if masker else 0)
    return found


def cut(*texts: tuple[Stream, bytes], start: int = 0) -> list[OutputPiece]:
    pieces = []
    for stream, data in texts:
        pieces.append(OutputPiece(stream, start, data))
        start += len(data)
    return pieces


def text(found: Sequence[OutputPiece | OutputGap], stream: Stream) -> bytes:
    return b"".join(
        each.data for each in found if isinstance(each, OutputPiece) and each.stream is stream
    )


def contiguous(found: Sequence[OutputPiece | OutputGap], offset: int) -> int:
    """Return the end, after checking that every byte from `offset` on came once and in order."""
    for each in found:
        assert each.offset == offset
        offset += each.omitted if isinstance(each, OutputGap) else len(each.data)
    return offset


async def test_without_secrets_output_passes_as_it_is() -> None:
    pieces = cut((OUT, b"a"), (ERR, b"b"))
    assert await read(pieces, Masker(())) == pieces
    assert before(500, Masker(())) == 500


async def test_a_secret_is_starred_also_across_pieces_and_streams() -> None:
    pieces = cut((OUT, b"key: sk-4f9c2a"), (ERR, b"warning\n"), (OUT, b"7e81d3b650 end\n"))
    found = await read(pieces, Masker([SECRET]))
    assert text(found, OUT) == b"key: " + b"*" * len(SECRET) + b" end\n"
    assert text(found, ERR) == b"warning\n"
    assert contiguous(found, 0) == sum(len(each.data) for each in pieces)


async def test_who_begins_within_a_secret_sees_none_of_it() -> None:
    """A reader that begins there cannot know of what it sees the end."""
    whole = b"x" * 30_000 + SECRET.encode() + b"\n"
    masker, offset = Masker([SECRET]), 30_000 + 10
    start = before(offset, masker)
    assert 0 < start < 30_000
    found = await read(cut((OUT, whole[start:]), start=start), masker, offset)
    assert text(found, OUT) == b"*" * (len(SECRET) - 10) + b"\n"
    assert contiguous(found, offset) == len(whole)
    shown = await read(cut((OUT, whole[offset:]), start=offset), masker, offset)
    assert text(shown, OUT) == b"*" * (len(SECRET) - 10) + b"\n"


async def test_who_begins_within_a_secret_sees_none_of_it_whatever_the_other_output_wrote() -> None:
    """The secret begins earlier than anybody reads. The control reads from the log's start."""
    masker, end = Masker([SECRET]), SECRET.encode()[10:]
    noise = b"e" * 200_000
    texts = ((OUT, SECRET.encode()[:10]), (ERR, noise), (OUT, end + b"x" * masker.reach + b"end"))
    offset = 10 + len(noise)
    start = before(offset, masker)
    assert start > 10
    after = cut((ERR, noise[start - 10 :]), texts[2], start=start)
    found = await read(after, masker, offset)
    assert end not in text(found, OUT)
    assert text(found, OUT).endswith(b"end")
    assert text(found, ERR) == b""
    whole = await read(cut(*texts), masker, offset)
    assert text(whole, OUT) == b"*" * len(end) + b"x" * masker.reach + b"end"


async def test_after_a_gap_nothing_of_a_secret_that_stood_there_is_seen() -> None:
    """In each output, as many bytes are masked as a secret may have; later ones are shown."""
    masker, end = Masker([SECRET]), SECRET.encode()[10:]
    pieces: list[OutputPiece | OutputGap] = [*cut((OUT, b"plain")), OutputGap(5, 100)]
    for stream in (OUT, ERR):
        last = pieces[-1]
        at = last.offset + (last.omitted if isinstance(last, OutputGap) else len(last.data))
        pieces += cut((stream, end + b"\n" + b"x" * masker.reach), start=at)
    found = await read(pieces, masker)
    for stream, first in ((OUT, b"plain"), (ERR, b"")):
        shown = text(found, stream)
        hidden = b"*" * len(end) + b"\n" + b"*" * (masker.reach - len(end) - 1)
        assert shown == first + hidden + b"x" * (len(end) + 1)
    assert contiguous(found, 0) == 105 + 2 * (len(end) + 1 + masker.reach)


class Dots:
    """A process that writes 2,000 dots, one each 0.3 ms by a clock of its own.

    Those that have come while nobody read are read as one piece.
    """

    ALL = 2000
    EVERY_S = 0.0003

    def __init__(self) -> None:
        self.now = 0.0
        self._read = 0

    @property
    def ready(self) -> bool:
        """Whether something has come that was not read."""
        return self._come > self._read

    @property
    def _come(self) -> int:
        return min(self.ALL, int(self.now / self.EVERY_S))

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    async def __aiter__(self) -> Output:
        while self._read < self.ALL:
            if not self.ready:
                self.now = (self._read + 1.5) * self.EVERY_S
            piece = OutputPiece(OUT, self._read, b"." * (self._come - self._read))
            self._read = self._come
            yield piece


@pytest.mark.parametrize("secrets", [[], [SECRET]])
async def test_output_in_many_small_pieces_costs_the_node_little(
    monkeypatch: pytest.MonkeyPatch, secrets: list[str]
) -> None:
    """Each piece's cost is charged, and pieces are joined. The control passes them on singly."""

    async def pieces(gather: Callable[[Attached], Output]) -> int:
        dots, spent = Dots(), list[float]()
        clock = SimpleNamespace(monotonic=lambda: dots.now, perf_counter=time.perf_counter)
        monkeypatch.setattr(masked_module, "time", clock)
        monkeypatch.setattr(masked_module, "asyncio", dots)
        output = gather(cast("Attached", dots))
        found = [each async for each in masked(output, Masker(secrets), 0, charge=spent.append)]
        assert text(found, OUT) == b"." * Dots.ALL
        assert bool(spent) == bool(secrets)
        return len(spent) if secrets else len(found)

    assert await pieces(aiter) == Dots.ALL
    assert await pieces(gathered) * 10 < Dots.ALL


@pytest.mark.parametrize(
    ("gap", "kept"),
    [((0, 50), None), ((0, 120), OutputGap(100, 20)), ((120, 5), OutputGap(120, 5))],
)
async def test_of_a_gap_that_part_is_told_that_was_asked_for(
    gap: tuple[int, int], kept: OutputGap | None
) -> None:
    start = gap[0] + gap[1]
    pieces: list[OutputPiece | OutputGap] = [OutputGap(*gap)]
    if gap[0]:
        pieces[:0] = cut((OUT, b"a" * gap[0]))
    pieces += cut((OUT, b"b" * 40), start=start)
    found = await read(pieces, Masker([SECRET]), 100)
    assert [each for each in found if isinstance(each, OutputGap)] == ([kept] if kept else [])
    assert contiguous(found, 100 if found else start + 40) == start + 40


async def test_any_cut_gives_the_same_bytes() -> None:
    rng = random.Random(7)  # noqa: S311 - a seed makes a failure come again
    whole = b"".join(
        rng.choice([SECRET.encode(), b"sk-", b"plain ", b"\n", SECRET[:9].encode()])
        for _ in range(200)
    )
    masker = Masker([SECRET])
    expected = masker.whole(whole)
    for _ in range(50):
        pieces, at = [], 0
        while at < len(whole):
            size = rng.randrange(1, 60)
            pieces.append((OUT, whole[at : at + size]))
            if rng.random() < 0.3:
                pieces.append((ERR, b"e" * rng.randrange(1, 9)))
            at += size
        found = await read(cut(*pieces), masker)
        assert text(found, OUT) == expected
        assert contiguous(found, 0) == sum(len(data) for _, data in pieces)
