"""Every process but this one: reaped, signalled, ended; and children that do one thing for it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

from libc import call
from wire import Disconnected

PR_SET_DUMPABLE = 4


def set_dumpable(value: int) -> None:
    """Set whether this process may be read and traced (prctl(2), PR_SET_DUMPABLE)."""
    call("prctl", PR_SET_DUMPABLE, value, 0, 0, 0)


def trim() -> None:
    """Give back to the kernel what memory is free (malloc_trim(3))."""
    call("malloc_trim", 0)


def in_child(work: Callable[..., str | None], *given: object) -> str:
    """Do it in a process of its own, whose memory goes with it, and return what it says.

    Raises Disconnected if it fails.
    """
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(sink, (work(*given) or "").encode())
            status = 0
        finally:
            # Whatever it was, a child must not return into its parent's frames.
            os._exit(status)
    os.close(sink)
    _, status = os.waitpid(pid, 0)
    with open(source) as said:
        answer = said.read()
    if status != 0:
        raise Disconnected
    return answer


def reaped() -> Iterator[tuple[int, int]]:
    """Yield pid and status of every child that has ended: orphans become ours."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended


def signal_all(number: int) -> None:
    """Signal every process but this one (kill(2), pid -1)."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, number)


def kill_all() -> None:
    """Return when this process is the only one: nobody can write a file or a pipe any more."""
    with contextlib.suppress(ChildProcessError):
        while True:
            signal_all(signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.001)
