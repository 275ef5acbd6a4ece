"""PID 1 of a sandbox: places files, runs one untrusted program at a time, hands back what it left.

Theory of operation. Standard library only, one thread, one connection. The worker outside speaks
first and is believed; the program shares this process's user id and is not: it cannot signal
PID 1 (no handler but SIGCHLD's is installed, and the kernel discards the rest for an init
process, pid_namespaces(7)), and cannot read or trace it (non-dumpable, ptrace(2)).

Between commands the socket blocks. While the program runs, one event loop moves its output, and
reads no more of it than the worker takes. A program that has ended is followed by SIGKILL to
everything else, which needs no new process and so works in a sandbox full of them.

What a run is given and leaves is handled by children that end with it, so that the memory which
the next one is forked from holds none of it: one that is made ahead and becomes the program, and
one that collects what it left and cleans up after it. PID 1 itself sees to a run that left
nothing, and collects what the last run left, but obeys nothing afterwards: where files have used
up the memory, no child can be made.

A sandbox that is told to live is served by `live` from then on.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

import interpreter
from clean import Baseline, clean, clean_of
from collect import Bounds, collect
from files import MainFile
from processes import in_child, set_dumpable
from run import Run, live, load_living
from sockets import AF_UNIX, Socket, socketpair
from wire import SOCKET, Disconnected, Wire


def serve(wire: Wire, children: Socket, wakeup: Socket) -> interpreter.Script | None:
    """Obey the worker until it hangs up. Returns only in a child that is to be a script."""
    baseline = Baseline()
    memory = -1
    main_file: MainFile | None = None
    wire.greet()
    while True:
        command = wire.command()
        if command["do"] == "ping":
            wire.say("alive")
        elif command["do"] == "load":
            load_living()
            wire.say("loaded", failed=interpreter.load())
        elif command["do"] == "prepare":
            _forget(memory)
            memory = os.memfd_create("placed", os.MFD_CLOEXEC)
            run = Run(wire, children, wakeup)
            if (script := run.serve(memory)) is not None:
                return script
            main_file = run.main_file
        elif command["do"] == "collect":
            bounds = Bounds(command["max_files"], command["max_bytes"], command["names_bytes"])
            if not command["again"]:
                collect(wire, memory, bounds)
                wire.command()
                raise Disconnected
            if not bounds.names_bytes and main_file and baseline.holds_only(main_file):
                wire.say("collected", refused=[], refused_total=0)
                _await_clean(wire)
                left = clean_of(main_file, baseline)
            else:
                told = in_child(_collect_and_clean, wire, memory, bounds, baseline)
                left = told.splitlines()
            memory = _forget(memory)
            wire.say("cleaned", left=left)
        elif command["do"] != "terminate":
            live(wire, children, command)


def _collect_and_clean(wire: Wire, memory: int, bounds: Bounds, baseline: Baseline) -> str:
    """Collect what the run left, and clean up when the worker has it; return what is left."""
    collect(wire, memory, bounds)
    _await_clean(wire)
    return clean(baseline)


def _await_clean(wire: Wire) -> None:
    if wire.command()["do"] != "clean":
        raise Disconnected


def _forget(memory: int) -> int:
    """Let go of what was placed; return the descriptor of nothing."""
    if memory >= 0:
        os.close(memory)
    return -1


def main() -> interpreter.Script | None:
    """Connect, become unreadable, serve."""
    set_dumpable(0)
    children, wakeup = socketpair()
    for end in (children, wakeup):
        end.setblocking(False)  # noqa: FBT003 - the standard library's signature
    # Python's own SIGINT handler would let the program interrupt us.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    interpreter.rehearse()
    # What is here now stays: no child's collector has to look at it, or copies it by looking.
    gc.freeze()
    connection = Socket(AF_UNIX)
    connection.connect(SOCKET)
    try:
        return serve(Wire(connection), children, wakeup)
    except (Disconnected, ConnectionError):
        sys.exit(0)
