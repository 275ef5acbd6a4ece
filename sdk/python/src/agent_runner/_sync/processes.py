# Written by scripts/make-sync from _async/processes.py: change that.
"""Processes in a sandbox: follow, feed, signal and wait for them."""

from collections.abc import Iterator
from contextlib import ExitStack

import httpx

from agent_runner._sync.calls import call, delete, events, order
from agent_runner._sync.local import Content, sendable, sleep
from agent_runner._sync.sockets import connected
from agent_runner._sync.terminals import Terminal
from agent_runner.errors import Unavailable
from agent_runner.living import Kept, OutputEvent, ProcessInfo, Ran
from agent_runner.living_answers import OUTPUT, PROCESS
from agent_runner.transport import MAX_RESUMES, PATIENT, RESUME_AFTER_S
from agent_runner.types import Stream

_BYTES = {"Content-Type": "application/octet-stream"}


class Process:
    """A process in a sandbox. `info` is the API's latest answer about it."""

    def __init__(self, http: httpx.Client, path: str, info: ProcessInfo, offset: int = 0) -> None:
        self._http = http
        self._path = f"{path}/{info.process}"
        self.info = info
        self.offset = offset
        """The offset of the first byte of output that was not read here."""

    def __repr__(self) -> str:
        return f"Process({self.number})"

    @property
    def number(self) -> int:
        """Its number in its sandbox."""
        return self.info.process

    def refresh(self) -> ProcessInfo:
        """Ask the API about it, keep the answer as `info`, and return it."""
        self.info = call(self._http, PROCESS, "GET", self._path)
        return self.info

    def output(self, *, offset: int | None = None, follow: bool = True) -> Iterator[OutputEvent]:
        """Yield its output, from an offset on, until it ends; the last event says how.

        By default, it goes on where the last reading ended. It resumes a broken connection without
        missing or repeating anything. Without `follow`, it stops after what is there now.
        """
        self.offset = self.offset if offset is None else offset
        failures = 0
        while True:
            try:
                for event in self._events(follow=follow):
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
            sleep(RESUME_AFTER_S)

    def wait(self) -> ProcessInfo:
        """Return it once it has ended, however long that takes."""
        for _ in self.output():
            pass
        return self.refresh()

    def write(self, data: Content, *, close: bool = False) -> None:
        """Write to its stdin; return once all is taken. With `close`, then close its stdin."""
        asked = {"close": "true"} if close else {}
        sent = {"content": sendable(data), "headers": _BYTES, "timeout": PATIENT}
        order(self._http, "POST", f"{self._path}/stdin", params=asked, **sent)

    def close_stdin(self) -> None:
        """Close its stdin."""
        self.write(b"", close=True)

    def signal(self, signal: str | int) -> None:
        """Signal it and its group: `SIGINT`, or a number."""
        order(self._http, "POST", f"{self._path}/signal", json={"signal": signal})

    def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size."""
        size = {"rows": rows, "columns": columns}
        order(self._http, "POST", f"{self._path}/resize", json=size)

    def terminal(self, *, offset: int = 0) -> Terminal:
        """Open its terminal, from an offset of its output on; it must have one since its start."""
        opening = connected(self._http, f"{self._path}/terminal", {"offset": offset})
        with ExitStack() as stack:
            connection = stack.enter_context(opening)
            return Terminal(connection, stack.pop_all(), offset)

    def kill(self) -> None:
        """Kill it and its group, and discard it with its output."""
        delete(self._http, self._path)

    def finish(self, stdout: Stream | None, stderr: Stream | None, most: int) -> Ran:
        """Wait for its end; return the result, with the earlier output and what it writes now.

        Bytes of a gap are missing from both outputs: nobody knows which of them they were.
        """
        kept = {"stdout": Kept(most, stdout), "stderr": Kept(most, stderr)}
        last: OutputEvent | None = None
        for event in self.output():
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

    def _events(self, *, follow: bool) -> Iterator[OutputEvent]:
        asked = {"offset": str(self.offset), "follow": str(follow).lower()}
        return events(self._http, OUTPUT, f"{self._path}/output", params=asked)
