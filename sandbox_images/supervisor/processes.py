"""Starting the program, and ending every process but this one."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import struct
import time
from collections.abc import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Any

PR_SET_DUMPABLE = 4


def spawn(command: dict[str, Any], stdin: int) -> tuple[int, int, int, int | None]:
    """Start a program in a session of its own; return pid, its two pipes, and why it failed.

    The failure, an errno or None, comes through a pipe that a successful exec closes.
    """
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    why_read, why_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become(command, (stdin, out_write, err_write), why_write)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            number = getattr(error, "errno", None) or errno.EINVAL
            os.write(why_write, struct.pack(">I", number))
        finally:
            os._exit(127)
    for fd in (out_write, err_write, why_write):
        os.close(fd)
    with os.fdopen(why_read, "rb", buffering=0) as why:
        failure = why.read(4)
    return pid, out_read, err_read, struct.unpack(">I", failure)[0] if failure else None


def become(command: dict[str, Any], standard: tuple[int, int, int], why: int) -> None:
    """Turn this fresh child into the program, with nothing of ours in its hands."""
    os.setsid()
    # Python ignores the last two for itself, and an ignored signal stays so across exec.
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    # The program first, its supervisor last: the kernel then leaves someone to report it.
    # Only a dumpable process owns its files in /proc; exec makes the program dumpable anyway.
    set_dumpable(1)
    score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(score, b"1000")
    os.close(score)
    for target, source in enumerate(standard):
        os.dup2(source, target)
    os.closerange(3, why)
    os.closerange(why + 1, 1 << 16)
    os.chdir(command["cwd"])
    os.execvpe(command["argv"][0], command["argv"], {**os.environ, **command["env"]})  # noqa: S606 - no shell is the point


def set_dumpable(value: int) -> None:
    """Set whether this process may be read and traced (prctl(2), PR_SET_DUMPABLE)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


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
