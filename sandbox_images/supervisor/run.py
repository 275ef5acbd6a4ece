"""The program's run: its output, its end, and the end of everything it started."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket

from bridge import Bridge, trust
from files import WORKSPACE
from processes import kill_all, reaped, signal_all, spawn
from wire import PIECE, Disconnected, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Any

BACKLOG = 256 * 1024
REPORT_EVERY = 1024 * 1024


class Output:
    """One stream of the program: forwarded up to a bound, then only counted."""

    def __init__(self, kind: bytes, fd: int, allowance: int) -> None:
        os.set_blocking(fd, False)
        self.kind = kind
        self.fd: int | None = fd
        self.allowance = allowance
        self.total = 0

    def pump(self, wire: Wire) -> bool:
        """Move one piece. Return False when nothing is left to read for now or for good."""
        if self.fd is None:
            return False
        try:
            data = os.read(self.fd, PIECE)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        self.total += len(data)
        if kept := data[: self.allowance]:
            self.allowance -= len(kept)
            wire.queue(self.kind, kept)
        return True

    def close(self) -> None:
        """Let go of the pipe."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class Run:
    """The one program, from its start to the report of its end."""

    def __init__(self, wire: Wire, children: socket.socket) -> None:
        self.wire = wire
        self.children = children
        self.status: int | None = None
        self.reported = 0
        self.bridge: Bridge | None = None

    def start(self, command: dict[str, Any], stdin: int) -> bool:
        """Start the program, or say why it cannot start."""
        if command["egress"]:
            self.bridge = Bridge()
        if command["trust"]:
            trust(command["trust"])
        self.pid, out, err, problem = spawn(command, stdin)
        self.outputs = [
            Output(b"O", out, command["output_bytes"]),
            Output(b"E", err, command["output_bytes"]),
        ]
        if problem is None:
            self.wire.say("started")
            return True
        for output in self.outputs:
            output.close()
        self._close_bridge()
        os.waitpid(self.pid, 0)
        self.wire.say("not_started", error=errno.errorcode.get(problem, "EIO"))
        return False

    def follow(self) -> None:
        """Serve the program until it ends, then end everything else and report."""
        self.wire.socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        while self.status is None:
            self._step()
        kill_all()
        self._close_bridge()
        self.wire.socket.setblocking(True)  # noqa: FBT003 - the standard library's signature
        for output in self.outputs:
            while output.pump(self.wire):
                self.wire.flush()
            output.close()
        self._report_end(self.status)

    def _step(self) -> None:
        """Wait for the events that can be used now; backpressure is not asking for output."""
        full = len(self.wire.outgoing) >= BACKLOG
        wire, children = self.wire.socket.fileno(), self.children.fileno()
        poll = select.poll()
        poll.register(wire, select.POLLIN | (select.POLLOUT if self.wire.outgoing else 0))
        poll.register(children, select.POLLIN)
        outputs = {o.fd: o for o in self.outputs if o.fd is not None and not full}
        for fd in outputs:
            poll.register(fd, select.POLLIN)
        if self.bridge:
            self.bridge.register(poll)
        for fd, events in poll.poll():
            if fd in outputs:
                outputs[fd].pump(self.wire)
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
            with contextlib.suppress(BlockingIOError):
                self.wire.flush()
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self.wire.fill()
            while frame := self.wire.next_frame():
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
            self.wire.say("counted", **self._totals())

    def _totals(self) -> dict[str, int]:
        return {"stdout": self.outputs[0].total, "stderr": self.outputs[1].total}

    def _report_end(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        space = os.statvfs(WORKSPACE)
        self.wire.say(
            "ended",
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            disk_full=space.f_bavail == 0 or (space.f_files > 0 and space.f_favail == 0),
            **self._totals(),
        )
