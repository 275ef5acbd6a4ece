"""The facts of how a run ended, and how its output was counted on the way."""

from dataclasses import dataclass
from enum import StrEnum

from runner.protocol.events import NotStarted, ProgramEnded
from runner.sandbox.observe.cgroups import Counters
from runner.words.errors import ProtocolViolation
from runner.words.execution import Output, Stream, Usage


class Cause(StrEnum):
    """The cause of a run's end, if that was not the program."""

    NONE = "none"
    DEADLINE = "deadline"
    CANCEL = "cancel"
    FLOOD = "flood"


@dataclass(frozen=True, slots=True)
class Ending:
    """The raw facts of how a run ended; `outcome.classify` says what they mean.

    `command` is the program as the client named it. `exit_code`, `signal` and `not_started` are the
    supervisor's word, the rest is our own observation. `container_died` is an end that neither the
    program reported nor we caused.
    """

    command: str
    cause: Cause
    exit_code: int | None
    signal: int | None
    not_started: str | None
    oom_killed: bool
    container_died: bool
    stdout: Output
    stderr: Output
    usage: Usage
    limits_hit: tuple[str, ...]


class Tally:
    """The output of a run so far, by our count and by the supervisor's."""

    def __init__(self, allowance: int, *, kept: int | None = None) -> None:
        self.allowance = allowance
        """The bytes of each stream that the supervisor is asked for."""
        self._kept = allowance if kept is None else kept
        self.received = dict.fromkeys(Stream, 0)
        self.total = dict.fromkeys(Stream, 0)

    def receive(self, stream: Stream, size: int) -> None:
        """Count a piece that came. Raises ProtocolViolation beyond what was asked for."""
        self.received[stream] += size
        if self.received[stream] > self.allowance:
            raise ProtocolViolation(f"the sandbox sent more {stream} than it was asked for")
        self.total[stream] = max(self.total[stream], self.received[stream])

    def claim(self, stdout: int, stderr: int) -> None:
        """Take the supervisor's count, which may grow and may not contradict ours."""
        for stream, total in ((Stream.STDOUT, stdout), (Stream.STDERR, stderr)):
            if total < self.total[stream]:
                raise ProtocolViolation(f"the sandbox counted less {stream} than it sent")
            self.total[stream] = total

    def output(self, stream: Stream) -> Output:
        """Return how much the stream carried, and whether some of it was dropped."""
        kept = min(self.received[stream], self._kept)
        return Output(self.total[stream], truncated=self.total[stream] > kept)

    @property
    def everything(self) -> int:
        """Bytes of both streams together."""
        return sum(self.total.values())


def ending_of(
    command: str,
    cause: Cause,
    report: ProgramEnded | NotStarted | None,
    tally: Tally,
    counters: Counters,
    *,
    wall_s: float,
    died_of_memory: bool,
) -> Ending:
    """Put together what we did, what was reported and what the kernel counted."""
    ended = report if isinstance(report, ProgramEnded) else None
    oom_killed = died_of_memory or bool(counters.oom_kills)
    stdout, stderr = tally.output(Stream.STDOUT), tally.output(Stream.STDERR)
    hit = {
        "memory_mb": oom_killed,
        "pids": bool(counters.pids_refused),
        "disk_mb": ended is not None and ended.disk_full,
        "timeout_s": cause is Cause.DEADLINE,
        "output_kb": stdout.truncated or stderr.truncated,
    }
    return Ending(
        command=command,
        cause=cause,
        exit_code=ended.exit_code if ended else None,
        signal=ended.signal if ended else None,
        not_started=report.error if isinstance(report, NotStarted) else None,
        oom_killed=oom_killed,
        container_died=report is None and cause is Cause.NONE,
        stdout=stdout,
        stderr=stderr,
        usage=Usage(
            wall_s=wall_s,
            cpu_s=counters.cpu_s,
            memory_peak_bytes=counters.memory_peak_bytes,
            pids_peak=counters.pids_peak,
        ),
        limits_hit=tuple(name for name, met in hit.items() if met),
    )
