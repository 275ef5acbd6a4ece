"""The processes that were started in one sandbox, and what the node knows of each.

The supervisor does not know what was started, when, and until when it may run. The node writes that
into the process's label, and the supervisor hands the label to the node's next process.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from signal import SIGKILL
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError, with_config

from runner.protocol.codec import STRICT
from runner.protocol.living_events import ProcessExited
from runner.sandbox.guest.processes import GuestProcess
from runner.words.errors import NotFound, RunnerError
from runner.words.living import Launch, ProcessEnd, ProcessInfo

MOST_ENDED = 256
"""How many ended processes are remembered, with their output; beyond that, the oldest goes."""
_LABEL = 1024
"""Short, because a takeover receives the labels of all processes at once."""
_ARGUMENT = 512


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ProcessLabel:
    """The node's notes about a process."""

    argv: tuple[str, ...]
    tag: str | None
    started_at: Annotated[float, Field(ge=0)]
    until: float | None
    """Its deadline by the host's clock, which goes on while no process of the node runs."""

    @classmethod
    def of(cls, launch: Launch) -> "ProcessLabel":
        """Return the note for a process that starts now, with as many arguments as fit."""
        now = time.time()
        until = None if launch.timeout_s is None else now + launch.timeout_s
        label = cls(launch.argv, launch.tag, now, until)
        if len(label.text()) > _LABEL:
            label = replace(label, argv=tuple(each[:_ARGUMENT] for each in label.argv))
        while len(label.text()) > _LABEL:
            label = replace(label, argv=label.argv[: len(label.argv) // 2])
        return label

    def text(self) -> str:
        """Return the note as a label."""
        facts = _LABELS.dump_python(self, mode="json")
        return json.dumps(facts, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def read(cls, text: str) -> "ProcessLabel":
        """Return what a label says. It comes from the supervisor: nonsense counts as empty."""
        try:
            return _LABELS.validate_json(text)
        except ValidationError:
            return cls((), None, 0.0, None)


_LABELS = TypeAdapter(ProcessLabel)


@dataclass(slots=True)
class TrackedProcess:
    """One process: the supervisor's hold on it, and what the node knows of it."""

    guest: GuestProcess
    label: ProcessLabel
    timed_out: bool = False
    end: ProcessEnd | None = None
    ended_at: datetime | None = None
    """None while it runs, and if no process of this node saw it end."""
    timer: asyncio.TimerHandle | None = None
    noted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its end was noted, or can no longer be seen."""

    async def wait(self) -> ProcessEnd:
        """Return how it ended, once it has. Raises the reason why the sandbox was lost."""
        await self.noted.wait()
        if self.end is None:
            await self.guest.exited
            raise RuntimeError("the end of a process was not noted")
        return self.end

    @property
    def number(self) -> int:
        """Its number in the sandbox."""
        return self.guest.number

    def info(self, output_bytes: int = 0) -> ProcessInfo:
        """Return what the API is told; `output_bytes` counts while the process runs."""
        return ProcessInfo(
            number=self.guest.number,
            argv=self.label.argv,
            tag=self.label.tag,
            terminal=self.guest.terminal,
            stdin=self.guest.stdin,
            started_at=datetime.fromtimestamp(self.label.started_at, UTC),
            output_bytes=self.end.output_bytes if self.end else output_bytes,
            ended_at=self.ended_at,
            end=self.end,
        )


class ProcessTable:
    """The processes of one sandbox. `forget` discards one, so that nobody can ask for it again."""

    def __init__(
        self, *, forget: Callable[[int], None], on_end: Callable[[int, ProcessEnd], None]
    ) -> None:
        self._forget = forget
        self._on_end = on_end
        self._known: dict[int, TrackedProcess] = {}
        self._ended: dict[int, None] = {}
        self.started = 0
        """How many were started since this process of the node took the sandbox."""

    def __iter__(self) -> Iterator[TrackedProcess]:
        """Yield all, in order of start."""
        return iter(sorted(self._known.values(), key=lambda each: each.number))

    def add(
        self, guest: GuestProcess, label: ProcessLabel, *, known: bool = False
    ) -> TrackedProcess:
        """Keep a process: start its timer, and note its end.

        A `known` process was started by an earlier process of this node.
        """
        told = known and guest.exited.done()
        process = TrackedProcess(guest, label)
        self._known[process.number] = process
        self.started += not known
        if label.until is not None:
            left = max(0.0, label.until - time.time())
            process.timer = asyncio.get_running_loop().call_later(left, _time_is_up, process)
        guest.exited.add_done_callback(lambda exited: self._note_end(process, exited, told=told))
        return process

    def get(self, number: int) -> TrackedProcess:
        """Return a process. Raises NotFound."""
        try:
            return self._known[number]
        except KeyError:
            raise NotFound(f"there is no process {number} in this sandbox") from None

    def forget(self, number: int) -> None:
        """Kill a process if it runs, and discard it. Raises NotFound."""
        process = self.get(number)
        self._drop(process)
        self._forget(number)

    def stop(self) -> None:
        """Stop all timers."""
        for process in self._known.values():
            _stop(process)

    def _drop(self, process: TrackedProcess) -> None:
        _stop(process)
        self._known.pop(process.number, None)
        self._ended.pop(process.number, None)

    def _note_end(
        self, process: TrackedProcess, exited: "asyncio.Future[ProcessExited]", *, told: bool
    ) -> None:
        _stop(process)
        process.noted.set()
        if exited.cancelled() or exited.exception() is not None:
            # The sandbox is lost, or somebody forgot the process.
            return
        event = exited.result()
        timed_out = process.timed_out and event.signal == SIGKILL
        process.end = ProcessEnd(event.exit_code, event.signal, timed_out, event.output)
        if not told:
            process.ended_at = datetime.now(UTC)
            self._on_end(process.number, process.end)
        if process.number not in self._known:
            return
        self._ended[process.number] = None
        while len(self._ended) > MOST_ENDED:
            self.forget(next(iter(self._ended)))


def _time_is_up(process: TrackedProcess) -> None:
    process.timed_out = True
    try:
        process.guest.signal(SIGKILL)
    except RunnerError:
        # The sandbox is lost, and its processes with it.
        return


def _stop(process: TrackedProcess) -> None:
    if process.timer is not None:
        process.timer.cancel()
        process.timer = None
