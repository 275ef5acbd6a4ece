"""PID 1 of a sandbox: places files, runs one untrusted program, hands back what it left.

Theory of operation. Standard library only, one thread, one connection. The worker outside speaks
first and is believed; the program shares this process's user id and is not: it cannot signal
PID 1 (no handler but SIGCHLD's is installed, and the kernel discards the rest for an init
process, pid_namespaces(7)), and cannot read or trace it (non-dumpable, ptrace(2)).

Between commands the socket blocks. While the program runs, one event loop moves its output, and
reads no more of it than the worker takes. A program that has ended is followed by SIGKILL to
everything else, which needs no new process and so works in a sandbox full of them.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys

from files import Collector, Placed
from processes import set_dumpable
from run import Run
from wire import Disconnected, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Any

VERSION = 2
SOCKET = "/run/sandbox/supervisor.sock"


def take_stdin(wire: Wire, size: int) -> int:
    """Return a descriptor that reads the program's input: a file, so nothing can block on it."""
    if size == 0:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    file = os.memfd_create("stdin", os.MFD_CLOEXEC)
    for piece in wire.pieces(size):
        os.write(file, piece)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def place_file(wire: Wire, placed: Placed, command: dict[str, Any]) -> None:
    """Place one input file; report a failure only after its pieces are consumed."""
    pieces = wire.pieces(command["size"])
    try:
        placed.place(command["path"], pieces)
    except OSError as error:
        for _ in pieces:
            pass
        wire.say("not_placed", error=errno.errorcode.get(error.errno or 0, "EIO"))
    else:
        wire.say("placed")


def serve(wire: Wire, children: socket.socket) -> None:
    """Obey the worker until it hangs up."""
    placed = Placed()
    wire.say("ready", version=VERSION)
    while True:
        wire.flush()
        command = wire.command()
        if command["do"] == "ping":
            wire.say("alive")
        elif command["do"] == "place":
            place_file(wire, placed, command)
        elif command["do"] == "run":
            stdin = take_stdin(wire, command["stdin_bytes"])
            run = Run(wire, children)
            if run.start(command, stdin):
                os.close(stdin)
                run.follow()
        elif command["do"] == "collect":
            Collector(wire, placed, command["max_files"], command["max_bytes"]).collect()
        elif command["do"] != "terminate":
            raise Disconnected


def main() -> None:
    """Connect, become unreadable, serve."""
    set_dumpable(0)
    children, wakeup = socket.socketpair()
    for end in (children, wakeup):
        end.setblocking(False)  # noqa: FBT003 - the standard library's signature
    # Python's own SIGINT handler would let the program interrupt us.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(SOCKET)
    try:
        serve(Wire(connection), children)
    except (Disconnected, ConnectionError):
        sys.exit(0)


if __name__ == "__main__":
    main()
