"""Processes in a sandbox: follow, feed, signal and wait for them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx

from agent_runner._async.calls import call, delete, events, order
from agent_runner._async.local import Content, sendable, sleep
from agent_runner._async.sockets import connected
from agent_runner._async.terminals import AsyncTerminal
from agent_runner.errors import Unavailable
from agent_runner.living import Kept, OutputEvent, ProcessInfo, Ran
from agent_runner.living_answers import OUTPUT, PROCESS
from agent_runner.transport import MAX_RESUMES, PATIENT, RESUME_AFTER_S
from agent_runner.types import Stream

_BYTES = {"Content-Type": "application/octet-stream"}


class AsyncProcess:
    """A process in a sandbox. `info` is the API's latest answer about it."""

    def __init__(
        self, http: httpx.AsyncClient, path: str, info: ProcessInfo, offset: int = 0
    ) -> None:
        self._http = http
        self._path = f"{path}/{info.process}"
        self.info = info
        self.offset = offset
        """The offset of the first byte of output that was not read here."""

    def __repr__(self) -> str:
        return f"AsyncProcess({self.number})"

    @property
    def number(self) -> int:
        """Its number in its sandbox."""
        return self.info.process

    async def refresh(self) -> ProcessInfo:
        """Ask the API about it, keep the answer as `info`, and return it."""
        self.info = await call(self._http, PROCESS, "GET", self._path)
        return self.info

    async def output(
        self, *, offset: int | None = None, follow: bool = True
    ) -> AsyncIterator[OutputEvent]:
        """Yield its output, from an offset on, until it ends; the last event says how.

        By default, it goes on where the last reading ended. It resumes a broken connection without
        missing or repeating anything. Without `follow`, it stops after what is there now.
        """
        self.offset = self.offset if offset is None else offset
        failures = 0
        while True:
            try:
                async for event in self._events(follow=follow):
                    failures = 0
                    self.offset = event.next_offset
                    yield event
                    if event.kind == "ended":
                        return
                if not follow:
                    return
            except Unavailable:
                failures += 1
                if failures > MAX_RESUMES:
                    raise
            await sleep(RESUME_AFTER_S)

    async def wait(self) -> ProcessInfo:
        """Return it once it has ended, however long that takes."""
        async for _ in self.output():
            pass
        return await self.refresh()

    async def write(self, data: Content, *, close: bool = False) -> None:
        """Write to its stdin; return once all is taken. With `close`, then close its stdin."""
        asked = {"close": "true"} if close else {}
        sent = {"content": sendable(data), "headers": _BYTES, "timeout": PATIENT}
        await order(self._http, "POST", f"{self._path}/stdin", params=asked, **sent)

    async def close_stdin(self) -> None:
        """Close its stdin."""
        await self.write(b"", close=True)

    async def signal(self, signal: str | int) -> None:
        """Signal it and its group: `SIGINT`, or a number."""
        await order(self._http, "POST", f"{self._path}/signal", json={"signal": signal})

    async def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size."""
        size = {"rows": rows, "columns": columns}
        await order(self._http, "POST", f"{self._path}/resize", json=size)

    async def terminal(self, *, offset: int = 0) -> AsyncTerminal:
        """Open its terminal, from an offset of its output on; it must have one since its start."""
        opening = connected(self._http, f"{self._path}/terminal", {"offset": offset})
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(opening)
            return AsyncTerminal(connection, stack.pop_all(), offset)

    async def kill(self) -> None:
        """Kill it and its group, and discard it with its output."""
        await delete(self._http, self._path)

    async def finish(self, stdout: Stream | None, stderr: Stream | None, most: int) -> Ran:
        """Wait for its end; return the result, with the earlier output and what it writes now.

        Bytes of a gap are missing from both outputs: nobody knows which of them they were.
        """
        kept = {"stdout": Kept(most, stdout), "stderr": Kept(most, stderr)}
        last: OutputEvent | None = None
        async for event in self.output():
            last = event
            if event.kind in kept:
                kept[event.kind].take(event.raw)
            for each in kept.values():
                each.lose(event.omitted_bytes)
        return Ran(
            process=self.number,
            exit_code=last.exit_code if last else None,
            signal=last.signal if last else None,
            timed_out=last.timed_out if last else False,
            stdout=kept["stdout"].stream,
            stderr=kept["stderr"].stream,
        )

    def _events(self, *, follow: bool) -> AsyncIterator[OutputEvent]:
        asked = {"offset": str(self.offset), "follow": str(follow).lower()}
        return events(self._http, OUTPUT, f"{self._path}/output", params=asked)
