"""Selects what is kept of one output stream: masked, bounded, and in whole characters.

Output comes in pieces of any size. It leaves in pieces that end at the end of a character, so that
each piece of a text is text. Output that is not UTF-8 keeps every byte.
"""

from copy import copy
from dataclasses import dataclass

from runner.base.masking import Masker
from runner.words.execution import Result, Stream
from runner.words.resources import RunBounds
from runner.words.text import character_end, character_start, is_utf8, whole_characters

PIECE_BYTES = 32 * 1024
"""About how many bytes one event has."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Output to record, and the number of bytes that were left out right before it."""

    chunk: bytes
    omitted: int = 0


def cut_off(result: Result) -> frozenset[Stream]:
    """Return the streams to which the program might have written more."""
    if result.exit_code is None:
        return frozenset(Stream)
    carried = {Stream.STDOUT: result.stdout, Stream.STDERR: result.stderr}
    return frozenset(stream for stream, output in carried.items() if output.truncated)


class KeptOutput:
    """Passes on the beginning of a stream as it comes, and holds its last bytes until the end.

    It holds at most `tail_bytes` of the bounds, plus what its mask holds back.
    """

    def __init__(self, bounds: RunBounds) -> None:
        self._mask = Masker(()).stream()
        self._carried = b""
        """The beginning of a character whose other bytes have not come yet."""
        self._is_text = True
        self._head_left = bounds.head_bytes
        self._tail = bytearray()
        self._tail_room = bounds.tail_bytes
        self._omitted = 0
        self.broken_off = False
        """Whether the stream ended within a character, whose bytes were dropped."""

    def hide(self, masker: Masker) -> None:
        """Mask what this masker finds. Call it before any output comes."""
        self._mask = masker.stream()

    async def feed(self, data: bytes) -> bytes:
        """Take a piece; return what to record now. A cancelled call changes nothing."""
        raw = self._carried + data
        whole = whole_characters(raw)
        mask = copy(self._mask)
        masked = await mask.feed_aside(raw[:whole])
        self._mask, self._carried = mask, raw[whole:]
        self._is_text = self._is_text and is_utf8(raw[:whole])
        return self._bounded(masked)

    def rest(self, *, cut: bool) -> list[Piece]:
        """Return what is left at the end; `cut` says that the program might have written more.

        An incomplete character at the cut is left out of text. If the program itself ended inside a
        character, the bytes are recorded: they are not UTF-8.
        """
        carried, self._carried = self._carried, b""
        if cut and self._is_text:
            self.broken_off = self.broken_off or bool(carried)
            carried = b""
        masked = self._mask.feed(carried) if carried else b""
        head = self._bounded(masked + self._mask.rest())
        tail, self._tail = bytes(self._tail), bytearray()
        start = character_end(tail, 0) if self._omitted and self._is_text else 0
        pieces = [Piece(head)]
        omitted = self._omitted + start
        while start < len(tail):
            end = character_start(tail, start + PIECE_BYTES)
            pieces.append(Piece(tail[start:end], omitted))
            start, omitted = end, 0
        return pieces

    def _bounded(self, masked: bytes) -> bytes:
        """Return what belongs to the beginning, and keep as much of the rest as the tail holds."""
        head = masked
        if len(masked) > self._head_left:
            head = masked[: character_start(masked, self._head_left)]
            self._tail_room += self._head_left - len(head)
            self._head_left = len(head)
        self._head_left -= len(head)
        self._tail += masked[len(head) :]
        if (over := len(self._tail) - self._tail_room) > 0:
            del self._tail[:over]
            self._omitted += over
        return head
