"""The composition root: `runner …`. The only module that may import everything."""

import gc
import signal
import sys
from types import FrameType

GARBAGE_AT = 20_000
"""Surplus of objects made over objects gone at which young objects are searched for cycles. At
Python's own 700, the search took a fifth of the API's start, which makes objects that stay, and an
eighth of a busy process's time."""
BY_SIGNAL = 128
"""A shell reports a program that a signal ended by this and the signal's number."""


class Stop:
    """Makes SIGTERM and SIGHUP end a command as Ctrl-C does: what it started is removed first.

    Commands that listen for signals by themselves put their own handlers in the place of this one.
    """

    def __init__(self) -> None:
        self.heard: int | None = None
        for each in (signal.SIGTERM, signal.SIGHUP):
            # nohup(1) and the like have it ignored, which stays.
            if signal.getsignal(each) is signal.SIG_DFL:
                signal.signal(each, self._hear)

    def _hear(self, number: int, _: FrameType | None) -> None:
        self.heard = number
        raise KeyboardInterrupt


def main() -> None:
    """Run the command line. The garbage collector runs rarely."""
    gc.set_threshold(GARBAGE_AT, 20, 50)
    stop = Stop()
    try:
        # Imported here, as Ctrl-C while that lasts is no error either.
        from runner.cli.app import app  # noqa: PLC0415

        app()
    except KeyboardInterrupt:
        sys.exit(BY_SIGNAL + (stop.heard or signal.SIGINT))
    except SystemExit:
        if stop.heard is None:
            raise
        # The table of commands takes it for Ctrl-C.
        sys.exit(BY_SIGNAL + stop.heard)


if __name__ == "__main__":
    main()
