"""Runs a command, follows all its processes, and writes down which system calls they make.

A program of its own that runs inside a sandbox, with the standard library only. It traces the
processes from the command's first exec on (ptrace(2), with PTRACE_SEIZE and
PTRACE_GET_SYSCALL_INFO, which give numbers and arguments on any processor). It sees calls before
the seccomp filter answers.

    python3 observer.py '{"tests": {"41": [0, 1]}, "report": "/tmp/calls"}' COMMAND…

`tests` names the arguments of calls to keep; of all other calls, only the number is kept.
"""

import ctypes
import errno
import json
import os
import signal
import struct
import sys
from pathlib import Path

SEIZE, INTERRUPT, LISTEN, SYSCALL, GET_SYSCALL_INFO = 0x4206, 0x4207, 0x4208, 24, 0x420E
# TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC, EXITKILL
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x100000
EVENT_EXEC, EVENT_STOP = 4, 128
ENTRY = 1
ENTRY_INFO = struct.Struct("<B3xIQQ7Q")  # op, arch, instruction and stack pointer, nr, arguments
STOPS = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
MOST = 20_000
WALL = 0x40000000


class Tracer:
    """The traced processes, and the calls that they made so far."""

    def __init__(self, tests: dict[int, list[int]]) -> None:
        self.tests = tests
        self.calls: set[tuple[int, ...]] = set()
        self.recording = False
        self.info = ctypes.create_string_buffer(ENTRY_INFO.size)
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self.libc.ptrace.restype = ctypes.c_long

    def ptrace(self, request: int, pid: int, data: int = 0) -> int:
        """Make one request; it is no failure if the process was killed meanwhile."""
        size = ENTRY_INFO.size if request == GET_SYSCALL_INFO else None
        target = ctypes.addressof(self.info) if request == GET_SYSCALL_INFO else data or None
        done = int(self.libc.ptrace(request, pid, size, target))
        number = ctypes.get_errno()
        if done == -1 and number != errno.ESRCH:
            raise OSError(number, os.strerror(number))
        return done

    def follow(self, command: int) -> int:
        """Follow all processes until the command ends, and return its wait status."""
        while True:
            pid, status = os.waitpid(-1, WALL)
            if not os.WIFSTOPPED(status):
                if pid == command:
                    return status
                continue
            event, number = status >> 16, os.WSTOPSIG(status)
            if number == signal.SIGTRAP | 0x80:
                self.record(pid)
                self.ptrace(SYSCALL, pid)
            elif event == EVENT_STOP and number in STOPS:
                self.ptrace(LISTEN, pid)
            elif event:
                self.recording = self.recording or event == EVENT_EXEC
                self.ptrace(SYSCALL, pid)
            else:
                self.ptrace(SYSCALL, pid, number)

    def record(self, pid: int) -> None:
        """Record the call that this process is about to make."""
        if self.ptrace(GET_SYSCALL_INFO, pid) < ENTRY_INFO.size or len(self.calls) >= MOST:
            return
        op, _, _, _, call, *arguments = ENTRY_INFO.unpack(self.info.raw)
        if op == ENTRY and self.recording:
            self.calls.add((call, *(arguments[index] for index in self.tests.get(call, ()))))


def start(command: list[str], tracer: Tracer) -> int:
    """Start the command, traced from before its exec."""
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready_write)
        os.read(ready_read, 1)
        os.close(ready_read)
        try:
            os.execvp(command[0], command)  # noqa: S606 - no shell is the point
        except OSError as error:
            sys.stderr.write(f"{command[0]}: {error.strerror}\n")
            os._exit(127)
    os.close(ready_read)
    tracer.ptrace(SEIZE, pid, OPTIONS)
    tracer.ptrace(INTERRUPT, pid)
    os.close(ready_write)
    return pid


def main(settings: str, *command: str) -> None:
    """Observe, write the report, and end as the command did."""
    chosen = json.loads(settings)
    tracer = Tracer({int(call): indexes for call, indexes in chosen["tests"].items()})
    status = tracer.follow(start(list(command), tracer))
    Path(chosen["report"]).write_text(json.dumps(sorted(tracer.calls)))
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(*sys.argv[1:])
