"""Output of a process with its secrets starred, and its bytes in the order in which they came.

A reader counts the bytes of stdout and stderr together, so that it can resume. A mask holds back
what may be the beginning of a secret; later bytes of the other stream then wait, too.

A reader that begins in the middle may begin in the middle of a secret. So output is read from
further before, and the part that nobody asked for is dropped after masking. That part may belong to
either output, and nothing is known of the bytes in a gap. So in both cases, as much of each output
as a secret may take up is starred, whatever it is.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from runner.base.masking import Masker, starred
from runner.base.masking import Stream as Mask
from runner.sandbox.guest.processes import Attached
from runner.words.execution import Stream
from runner.words.living import OutputGap, OutputPiece

GATHER_S = 0.005
"""How long output is gathered while it comes in many small pieces."""
_SMALL, _AT_ONCE = 4096, 8
"""Pieces up to this size are small; this many in a row are passed on at once."""
_FURTHER = 64 * 1024
"""At most this much further before is read, so that there is enough of both outputs."""
_LONGEST_S = 0.0003
"""Masking a piece that takes longer than this is done in a thread."""


def before(offset: int, masker: Masker) -> int:
    """Return where to start reading so that output from `offset` on is masked correctly."""
    if not masker:
        return offset
    return max(0, offset - masker.reach - min(3 * masker.reach, _FURTHER))


async def gathered(attached: Attached) -> AsyncIterator[OutputPiece | OutputGap]:
    """Yield the output as it comes, with many small pieces joined into fewer, larger ones.

    However small it is, each piece costs the node, the API and the client something.
    """
    last, quick = 0.0, 0
    async for each in attached:
        small = isinstance(each, OutputGap) or len(each.data) <= _SMALL
        now = time.monotonic()
        quick = quick + 1 if small and now - last < 2 * GATHER_S else 0
        last = now
        yield each
        if quick >= _AT_ONCE and not attached.ready:
            await asyncio.sleep(GATHER_S)


async def masked(
    output: AsyncIterator[OutputPiece | OutputGap],
    masker: Masker,
    offset: int,
    *,
    charge: Callable[[float], None],
) -> AsyncIterator[OutputPiece | OutputGap]:
    """Yield the output from `offset` on, masked. `before` says where reading has to begin.

    `charge` is told for how many seconds masking has held the event loop.
    """
    if not masker:
        async for each in output:
            yield each
        return
    order = _InOrder(masker)
    async for each in output:
        began = time.perf_counter()
        found = await order.take(each)
        charge(min(time.perf_counter() - began, _LONGEST_S))
        for ready in found:
            if (wanted := _from(ready, offset)) is not None:
                yield wanted
    for ready in order.rest():
        if (wanted := _from(ready, offset)) is not None:
            yield wanted


class _InOrder:
    """Masks two streams, and returns the certain part of both in their common order."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._masks: dict[Stream, Mask] = {each: masker.stream() for each in Stream}
        self._certain: dict[Stream, bytearray] = {each: bytearray() for each in Stream}
        self._waiting: deque[tuple[Stream, int, int]] = deque()
        """Stream, offset and length of each piece that has come and was not yet returned."""
        self._unknown = dict.fromkeys(Stream, 0)
        """In this many bytes of each output, a secret may end whose beginning nobody has seen."""
        self._begun = False

    async def take(self, each: OutputPiece | OutputGap) -> list[OutputPiece | OutputGap]:
        """Return what is certain now."""
        if not self._begun and each.offset:
            self._unknown = dict.fromkeys(Stream, self._masker.reach)
        self._begun = True
        if isinstance(each, OutputGap):
            # Bytes before the gap and after it do not adjoin.
            before_it = self.rest()
            self._unknown = dict.fromkeys(Stream, self._masker.reach)
            return [*before_it, each]
        self._waiting.append((each.stream, each.offset, len(each.data)))
        self._take_certain(each.stream, await self._masks[each.stream].feed_aside(each.data))
        return list(self._ready())

    def rest(self) -> list[OutputPiece | OutputGap]:
        """Return everything that was held back."""
        for stream, mask in self._masks.items():
            self._take_certain(stream, mask.rest())
            self._masks[stream] = self._masker.stream()
        return list(self._ready())

    def _take_certain(self, stream: Stream, data: bytes) -> None:
        hidden = min(self._unknown[stream], len(data))
        self._unknown[stream] -= hidden
        self._certain[stream] += starred(data[:hidden]) + data[hidden:]

    def _ready(self) -> list[OutputPiece]:
        ready = []
        while self._waiting:
            stream, offset, length = self._waiting[0]
            certain = self._certain[stream]
            if not (data := bytes(certain[:length])):
                break
            del certain[: len(data)]
            ready.append(OutputPiece(stream, offset, data))
            if len(data) < length:
                self._waiting[0] = (stream, offset + len(data), length - len(data))
                break
            self._waiting.popleft()
        return ready


def _from(each: OutputPiece | OutputGap, offset: int) -> OutputPiece | OutputGap | None:
    """Return the part from `offset` on."""
    skipped = max(0, offset - each.offset)
    if not skipped:
        return each
    if isinstance(each, OutputGap):
        left = each.omitted - skipped
        return OutputGap(offset, left) if left > 0 else None
    data = each.data[skipped:]
    return OutputPiece(each.stream, offset, data) if data else None
