"""The child that becomes the program: waits for it, takes its files and its command, is it then.

It is made before there is a program to run: to fork an interpreter takes longer than to run many.

PID 1 lives on when a sandbox serves its tenant's next run, and what is forked from it then sees
all of its memory. So it reads nothing of what a run is given: this child does, and ends with it.
Before it is the program it runs none of the program's code, and no other process is there.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import struct

import interpreter
from files import Placed
from processes import set_dumpable
from wire import Disconnected, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Any

    from sockets import Socket

LAST_FD = 1 << 16


class Standard:
    """The program's three standard streams, as descriptors."""

    def __init__(self, out: int, err: int) -> None:
        self.out = out
        self.err = err


def prepare(
    wire: Wire, memory: int, standard: Standard, parent: Socket, others: list[Socket]
) -> interpreter.Script:
    """Obey the worker up to the program's start, and be the program.

    Returns only for a script that this interpreter shall run; the caller's frames then have to
    go. `others` are the sockets of PID 1's that the program must not have.
    """
    try:
        interpreter.rehearse()
        placed = Placed(memory)
        missing = _begin(placed)
        command = _next(wire)
        while command["do"] == "place":
            _place(wire, placed, command)
            command = _next(wire)
        if command["do"] == "live":
            # Not for this process: PID 1 does that, on the stream that it was told on.
            told = {"life": command, "missing": missing, "stream": wire.stream}
            parent.sendall(json.dumps(told).encode())
            os._exit(0)
        program = json.loads(b"".join(wire.pieces(command["program_bytes"])))
        stdin = _take_stdin(wire, command["stdin_bytes"])
        _require(missing)
        placed.remember()
        if command["trust"]:
            from bridge import trust  # noqa: PLC0415 - not before it is needed, to save memory

            trust(command["trust"])
        facts = {name: command[name] for name in ("output_bytes", "egress")}
        parent.sendall(json.dumps({**facts, "main_file": placed.main_file()}).encode())
        if not facts["egress"] or parent.recv(1):
            return _become(program, (stdin, standard.out, standard.err), parent, others)
    except OSError as error:
        parent.sendall(struct.pack(">I", error.errno or errno.EINVAL))
    except ValueError:  # an argument that no program can be given, such as one with a NUL
        parent.sendall(struct.pack(">I", errno.EINVAL))
    except (Disconnected, KeyError):  # or a command that has no place here
        pass
    os._exit(127)


def _begin(placed: Placed) -> int:
    """Put there what the template begins with; return the errno of what prevents that, or 0."""
    if not os.path.isdir("/opt/skeleton"):
        return 0
    from skeleton import fill  # noqa: PLC0415 - only a template's sandbox needs it

    return fill(placed)


def _require(missing: int) -> None:
    if missing:
        raise OSError(missing, "its template's files are not there")


def _next(wire: Wire) -> dict[str, Any]:
    """Return the next command; meanwhile say that there is somebody to obey it."""
    while (command := wire.command())["do"] == "ping":
        wire.say("alive")
    return command


def _place(wire: Wire, placed: Placed, command: dict[str, Any]) -> None:
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


def _take_stdin(wire: Wire, size: int) -> int:
    """Return a descriptor that reads the program's input: a file, so nothing can block on it."""
    if size == 0:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    file = os.memfd_create("stdin", os.MFD_CLOEXEC)
    for piece in wire.pieces(size):
        os.write(file, piece)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _become(
    program: dict[str, Any],
    standard: tuple[int, int, int],
    parent: Socket,
    others: list[Socket],
) -> interpreter.Script:
    """Turn into the program, with nothing of ours in its hands."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # The program first, its supervisor last: the kernel then leaves someone to report it.
    # Only a dumpable process owns its files in /proc; exec makes the program dumpable anyway.
    set_dumpable(1)
    score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(score, b"1000")
    os.close(score)
    for target, source in enumerate(standard):
        os.dup2(source, target)
    why = parent.fileno()
    os.closerange(3, why)
    os.closerange(why + 1, LAST_FD)
    os.chdir(program["cwd"])
    if program["interpret"] and interpreter.suits(program["env"]):
        for each in (*others, parent):
            each.detach()
        os.close(why)  # which tells PID 1 that it has started, as a successful exec does
        return interpreter.Script(program["argv"], program["env"])
    return interpreter.start_anew(program["argv"], {**os.environ, **program["env"]})
