"""What a running program has said so far: bounded output, totals, and its end."""

import asyncio
from collections.abc import Awaitable, Callable

from runner.errors import ProtocolViolation
from runner.models import Output, Stream
from runner.sandbox.cgroups import Reading
from runner.sandbox.channel import Ended, Frame, Kind, Totals

STREAMS = {Kind.STDOUT: Stream.STDOUT, Kind.STDERR: Stream.STDERR}


class Watch:
    """Takes the frames of one run. `bound` is the most that is kept of each stream."""

    def __init__(
        self,
        *,
        bound: int,
        flood_bytes: int,
        on_output: Callable[[Stream, bytes], Awaitable[None]],
    ) -> None:
        self.bound = bound
        self.flood_bytes = flood_bytes
        self.flooding = asyncio.Event()
        self.ended: Ended | None = None
        self.reading: Reading | None = None
        self._on_output = on_output
        self._kept = dict.fromkeys(Stream, 0)
        self._totals = dict.fromkeys(Stream, 0)

    async def take(self, frame: Frame) -> bool:
        """Account for a frame; return whether it was the last. Raises ProtocolViolation."""
        if frame.kind in STREAMS:
            await self._output(STREAMS[frame.kind], frame.payload)
        elif frame.kind is Kind.TOTALS:
            self._count(frame.as_(Totals))
        elif frame.kind is Kind.ENDED:
            self.ended = frame.as_(Ended)
            if (self.ended.code is None) == (self.ended.signal is None):
                raise ProtocolViolation("supervisor reported neither or both of code and signal")
            self._count(self.ended)
            return True
        else:
            raise ProtocolViolation(f"supervisor sent {frame.kind.name} while the program ran")
        return False

    def outputs(self) -> dict[Stream, Output]:
        """Return how much each stream carried, and whether some of it was dropped."""
        return {
            stream: Output(
                total_bytes=max(self._totals[stream], kept),
                truncated=self._totals[stream] > kept,
            )
            for stream, kept in self._kept.items()
        }

    async def _output(self, stream: Stream, chunk: bytes) -> None:
        self._kept[stream] += len(chunk)
        if self._kept[stream] > self.bound or not chunk:
            raise ProtocolViolation(f"supervisor sent more of {stream.value} than it may")
        await self._on_output(stream, chunk)

    def _count(self, totals: Totals) -> None:
        self._totals = {Stream.STDOUT: totals.stdout, Stream.STDERR: totals.stderr}
        if sum(self._totals.values()) > self.flood_bytes:
            self.flooding.set()
