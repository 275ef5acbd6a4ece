"""The last bytes of a process's output, by offset, and to which of the two outputs each belongs.

No program can see this memory: programs are not forked from this process (`spawning`), and nobody
may read it (`serve`). A pipe is read into it without another copy. Little output takes little
memory.
"""

from __future__ import annotations

import mmap
import os
from array import array
from bisect import bisect_right

from wire import PIECE

KINDS = (b"O", b"E")
RUN = 64
"""The average length of remembered runs: with shorter ones, fewer bytes are kept."""
FEWEST_RUNS = 256
TIDY_AT = 256


class Log:
    """A ring of bytes, and the beginning of each run of bytes of one output in it."""

    def __init__(self, keep: int) -> None:
        self.capacity = max(keep, PIECE)
        self.start = self.total = 0
        """The offsets of the oldest byte that is kept, and of the next byte to come."""
        self._ring: mmap.mmap | None = None
        self._kept = b""
        self._most_runs = max(FEWEST_RUNS, self.capacity // RUN)
        self._runs = array("Q")
        """Offset and kind (the lowest bit) of each run, in order."""
        self._first = 0
        """The index of the run that holds the oldest byte."""

    def room(self, oldest: int) -> int:
        """Return how many bytes may come before a byte at or after `oldest` is lost."""
        if len(self._runs) - self._first >= self._most_runs and oldest < self._second:
            return 0
        return self.capacity - (self.total - oldest)

    def take(self, source: int, kind: int, most: int) -> int:
        """Read a piece of one output, and return its size."""
        if self._ring is None:
            self._ring = mmap.mmap(-1, self.capacity)
        begin = self.total % self.capacity
        end = min(begin + min(most, PIECE), self.capacity)
        with memoryview(self._ring) as ring, ring[begin:end] as place:
            size = os.readv(source, [place])
        if size:
            self._note(kind)
            self.total += size
            self.start = max(self.start, self.total - self.capacity)
            self._tidy()
        return size

    def piece(self, offset: int, most: int) -> tuple[bytes, memoryview]:
        """Return the kind and bytes of one output from an offset on. Release them at once."""
        place = bisect_right(self._runs, offset << 1 | 1, self._first) - 1
        following = place + 1
        until = self._runs[following] >> 1 if following < len(self._runs) else self.total
        until = min(until, offset + most)
        kind = KINDS[self._runs[place] & 1]
        if self._ring is None:
            base = self.total - len(self._kept)
            return kind, memoryview(self._kept)[offset - base : until - base]
        begin = offset % self.capacity
        end = min(begin + until - offset, self.capacity)
        return kind, memoryview(self._ring)[begin:end]

    def close(self) -> None:
        """Free the ring, as no more comes. What is kept takes only as much memory as it needs."""
        if self._ring is not None:
            split = self.start % self.capacity
            size = self.total - self.start
            self._kept = self._ring[split : split + size]
            self._kept += self._ring[: size - len(self._kept)]
            self._ring.close()
            self._ring = None

    @property
    def _second(self) -> int:
        """The offset of the second run kept, or of the end."""
        following = self._first + 1
        return self._runs[following] >> 1 if following < len(self._runs) else self.total

    def _note(self, kind: int) -> None:
        if not self._runs or self._runs[-1] & 1 != kind:
            self._runs.append(self.total << 1 | kind)

    def _tidy(self) -> None:
        """Forget overwritten runs, and the oldest if there are too many."""
        while len(self._runs) - self._first > self._most_runs:
            self.start = max(self.start, self._second)
            self._first += 1
        while self._second <= self.start < self.total:
            self._first += 1
        if self._first >= TIDY_AT and 2 * self._first >= len(self._runs):
            del self._runs[: self._first]
            self._first = 0
