"""Processes that outlive a tool call of the OpenAI Agents SDK: what they wrote, in pieces."""

import asyncio
from collections import deque
from contextlib import suppress

from agents.sandbox.errors import PtySessionNotFoundError
from agents.sandbox.session.pty_output import collect_pty_output
from agents.sandbox.session.pty_types import (
    PTY_PROCESSES_MAX,
    PtyExecUpdate,
    clamp_pty_yield_time_ms,
    resolve_pty_write_yield_time_ms,
)

from agent_runner import ApiError, AsyncProcess, Gone, NotFound
from agent_runner.types import omission

MOST = 2**20
"""How many bytes of output are kept from one call to the next: a sandbox may write without end."""
START_S, WRITE_S = 10.0, 0.25
"""How long to wait for output, unless the model says."""
NO_STDIN = "stdin is not available for this process"
"""The words by which the framework's tool knows the reason; it then tells the model what to do."""


class Terminals:
    """The processes that a session's tools have started, by their numbers in the sandbox."""

    def __init__(self) -> None:
        self._running: dict[int, _Terminal] = {}

    async def begun(
        self, process: AsyncProcess, yield_s: float | None, most_tokens: int | None
    ) -> PtyExecUpdate:
        """Return what a new process writes at first. The oldest makes room for it, if needed."""
        if len(self._running) >= PTY_PROCESSES_MAX:
            await self._running.pop(next(iter(self._running))).end()
        self._running[process.number] = _Terminal(process)
        wait_ms = clamp_pty_yield_time_ms(_ms(START_S if yield_s is None else yield_s))
        return await self._told(process.number, wait_ms, most_tokens)

    async def wrote(
        self, number: int, chars: str, yield_s: float | None, most_tokens: int | None
    ) -> PtyExecUpdate:
        """Write to a process, and return what it writes. Raises RuntimeError without a stdin."""
        terminal = self._running.get(number)
        if terminal is None:
            raise PtySessionNotFoundError(session_id=number)
        if chars:
            if not terminal.process.info.stdin:
                raise RuntimeError(NO_STDIN)
            await terminal.process.write(chars.encode())
        wait_ms = resolve_pty_write_yield_time_ms(
            yield_time_ms=_ms(WRITE_S if yield_s is None else yield_s), input_empty=not chars
        )
        return await self._told(number, wait_ms, most_tokens)

    async def end(self) -> None:
        """Kill every process that still runs."""
        while self._running:
            await self._running.popitem()[1].end()

    async def _told(self, number: int, wait_ms: int, most_tokens: int | None) -> PtyExecUpdate:
        terminal = self._running[number]
        terminal.make_room()
        output, tokens, closed = await collect_pty_output(
            output_chunks=terminal.chunks,
            output_lock=terminal.lock,
            output_notify=terminal.news,
            is_done=terminal.reading.done,
            yield_time_ms=wait_ms,
            max_output_tokens=most_tokens,
        )
        if not closed:
            return PtyExecUpdate(number, output, None, tokens)
        # A terminal that was read to its end has nothing more to tell.
        self._running.pop(number, None)
        return PtyExecUpdate(None, output, await terminal.reading, tokens)


class _Terminal:
    """A process whose output is read as it comes."""

    def __init__(self, process: AsyncProcess) -> None:
        self.process = process
        self.chunks: deque[bytes] = deque()
        self.lock = asyncio.Lock()
        self.news = asyncio.Event()
        self._room, self._missing = MOST, 0
        self.reading = asyncio.create_task(self._read())
        self.reading.add_done_callback(lambda _: self.news.set())

    def make_room(self) -> None:
        """Take output again, after saying how much is missing."""
        self._tell_missing()
        self._room = MOST

    async def end(self) -> None:
        """Kill it, unless it has ended."""
        self.reading.cancel()
        await asyncio.wait({self.reading})
        with suppress(Gone, NotFound):
            await self.process.kill()

    async def _read(self) -> int:
        """Take its output until it ends, and return its exit code."""
        async for event in self.process.output(offset=0):
            self._missing += event.omitted_bytes
            if event.raw:
                self._take(event.raw)
            if event.kind == "ended":
                self.make_room()
                return event.status
            self.news.set()
        raise ApiError({"detail": f"process {self.process.number} has no end"})

    def _take(self, raw: bytes) -> None:
        if self._room:
            self._tell_missing()
        if taken := raw[: self._room]:
            self.chunks.append(taken)
        self._room -= len(taken)
        self._missing += len(raw) - len(taken)

    def _tell_missing(self) -> None:
        if self._missing:
            said = f"\n{omission(self._missing)}\n".encode()
            self.chunks.append(said)
            self._room, self._missing = max(self._room - len(said), 0), 0


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
