"""The text messages of a terminal's WebSocket, in JSON. Input and output are binary messages."""

from typing import Self

from runner.api.fields import Strict
from runner.api.sandbox_requests import WindowSize
from runner.api.sandbox_views import signal_name
from runner.api.views import View
from runner.words.living import OutputGap, ProcessEnd


class ResizeMessage(Strict):
    """A message of a client."""

    resize: WindowSize


class GapView(View):
    """Output that is no longer kept."""

    offset: int
    omitted_bytes: int


class GapMessage(View):
    """Stands in place of output that is no longer kept."""

    gap: GapView

    @classmethod
    def of(cls, gap: OutputGap) -> Self:
        """Return the message of a gap."""
        return cls(gap=GapView(offset=gap.offset, omitted_bytes=gap.omitted))


class ExitView(View):
    """The end of a process."""

    offset: int
    exit_code: int | None
    signal: str | None
    timed_out: bool


class ExitMessage(View):
    """Reports a process's end, after all of its output."""

    exit: ExitView

    @classmethod
    def of(cls, end: ProcessEnd, offset: int) -> Self:
        """Return the message for an end at byte `offset` of the output."""
        return cls(
            exit=ExitView(
                offset=offset,
                exit_code=end.exit_code,
                signal=signal_name(end.signal),
                timed_out=end.timed_out,
            )
        )
