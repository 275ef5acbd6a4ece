"""The program's run: its start in a child, its output, its end, and the end of all it started."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import struct

from files import WORKSPACE, MainFile
from interpreter import Script
from prepare import Standard, prepare
from processes import kill_all, reaped, signal_all
from relay import Outbox
from sockets import AF_UNIX, SOCK_SEQPACKET, socketpair
from wire import Disconnected, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Any, NoReturn

    from bridge import Bridge
    from live import Living
    from sockets import Socket

REPORT_EVERY = 1024 * 1024
FACTS = 64 * 1024


class Output:
    """One stream of the program: forwarded up to a bound, then only counted."""

    def __init__(self, kind: bytes, fd: int, allowance: int) -> None:
        os.set_blocking(fd, False)
        self.kind = kind
        self.fd: int | None = fd
        self.allowance = allowance
        self.total = 0

    def pump(self, outbox: Outbox) -> bool:
        """Move one piece. Return False when nothing is left to read for now or for good."""
        if self.fd is None:
            return False
        try:
            size = outbox.take(self.fd, self.kind, self.allowance)
        except BlockingIOError:
            return False
        if not size:
            self.close()
            return False
        self.total += size
        self.allowance = max(0, self.allowance - size)
        return True

    def close(self) -> None:
        """Let go of the pipe."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class Run:
    """The one program, from its start to the report of its end."""

    def __init__(self, wire: Wire, children: Socket, wakeup: Socket) -> None:
        self.wire = wire
        self.children = children
        self.wakeup = wakeup
        self.status: int | None = None
        self.reported = 0
        self.bridge: Bridge | None = None
        self.life: dict[str, Any] | None = None
        """The command to live, if that came instead of a program."""
        self.main_file: MainFile | None = None
        """The program's file, if it was given as text and no other file was given."""

    def serve(self, memory: int) -> Script | None:
        """Serve one program to its end. In the child that is to be a script: return that."""
        ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            inherited = [self.wire.socket, self.children, self.wakeup]
            return prepare(self.wire, memory, Standard(out_write, err_write), theirs, inherited)
        theirs.close()
        os.close(out_write)
        os.close(err_write)
        with contextlib.closing(ours):
            problem, allowance = self._see_off(ours)
        if self.life is not None:
            for fd in (out_read, err_read):
                os.close(fd)
            live(self.wire, self.children, self.life)
        # Not before: a sandbox that waits for its program would hold the memory.
        self.outbox = Outbox(self.wire.socket, self.wire.stream)
        self.outputs = [Output(b"O", out_read, allowance), Output(b"E", err_read, allowance)]
        if problem is None:
            self.wire.say("started")
            self._follow()
        else:
            for output in self.outputs:
                output.close()
            self._close_bridge()
            os.waitpid(self.pid, 0)
            self.wire.say("not_started", error=errno.errorcode.get(problem, "EIO"))
        return None

    def _see_off(self, child: Socket) -> tuple[int | None, int]:
        """Wait until the child is the program; return why not, and how much it may put out."""
        said = child.recv(FACTS)
        if not said:
            raise Disconnected
        if len(said) == struct.calcsize(">I"):
            return struct.unpack(">I", said)[0], 0
        facts = json.loads(said)
        if "life" in facts:
            self.wire.stream = facts["stream"]
            if facts["missing"]:
                return facts["missing"], 0
            self.life = facts["life"]
            return None, 0
        if facts["main_file"]:
            self.main_file = MainFile(*facts["main_file"])
        if facts["egress"]:
            # The program does not begin before its way out is there.
            # A sandbox that waits, perhaps for a run without egress, is not to hold it.
            from bridge import Bridge  # noqa: PLC0415 - as said

            self.bridge = Bridge()
            child.sendall(b"\0")
        failure = child.recv(FACTS)
        return (struct.unpack(">I", failure)[0] if failure else None), facts["output_bytes"]

    def _follow(self) -> None:
        """Serve the program until it ends, then end everything else and report."""
        self.wire.socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        while self.status is None:
            self._step()
        kill_all()
        self._close_bridge()
        self.wire.socket.setblocking(True)  # noqa: FBT003 - the standard library's signature
        for output in self.outputs:
            while output.pump(self.outbox):
                self.outbox.flush()
            output.close()
        self._report_end(self.status)
        self.outbox.flush()
        self.outbox.wipe()

    def _step(self) -> None:
        """Wait for the events that can be used now; backpressure is not asking for output."""
        wire, children = self.wire.socket.fileno(), self.children.fileno()
        poll = select.poll()
        poll.register(wire, select.POLLIN | (0 if self.outbox.empty else select.POLLOUT))
        poll.register(children, select.POLLIN)
        waiting = [] if self.outbox.full else self.outputs
        outputs = {o.fd: o for o in waiting if o.fd is not None}
        for fd in outputs:
            poll.register(fd, select.POLLIN)
        if self.bridge:
            self.bridge.register(poll)
        for fd, events in poll.poll():
            if fd in outputs:
                outputs[fd].pump(self.outbox)
                self._count()
            elif fd == children:
                self._reap()
            elif fd == wire:
                self._talk(events)
            elif self.bridge:
                self.bridge.handle(fd, events)

    def _close_bridge(self) -> None:
        if self.bridge:
            self.bridge.close()
            self.bridge = None

    def _talk(self, events: int) -> None:
        if events & select.POLLOUT:
            self.outbox.flush()
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame = self.wire.next_frame()
                    if frame is None:
                        continue
                    if json.loads(frame[1]) != {"do": "terminate"}:
                        raise Disconnected
                    # A stopped process acts on SIGTERM only once it continues.
                    signal_all(signal.SIGTERM)
                    signal_all(signal.SIGCONT)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.children.recv(4096):
                pass
        for pid, status in reaped():
            if pid == self.pid:
                self.status = status

    def _count(self) -> None:
        """Tell of output that is dropped, so that the worker can call it a flood."""
        total = sum(output.total for output in self.outputs)
        if total - self.reported >= REPORT_EVERY:
            self.reported = total
            self.outbox.say("counted", **self._totals())

    def _totals(self) -> dict[str, int]:
        return {"stdout": self.outputs[0].total, "stderr": self.outputs[1].total}

    def _report_end(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        space = os.statvfs(WORKSPACE)
        self.outbox.say(
            "ended",
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            disk_full=space.f_bavail == 0 or (space.f_files > 0 and space.f_favail == 0),
            **self._totals(),
        )


def live(wire: Wire, children: Socket, command: dict[str, Any]) -> NoReturn:
    """Live from now on. Raises Disconnected for any other command."""
    if command["do"] != "live":
        raise Disconnected
    load_living()(wire, children, command).live()


def load_living() -> type[Living]:
    """Load what it takes to live.

    That takes 5 ms and 400 KiB: a sandbox that waits does it before anybody waits for it, and one
    that is started for an execution never does.
    """
    from live import Living  # noqa: PLC0415 - as said
    from places import refused  # noqa: PLC0415 - as said

    refused()
    return Living
