"""A code context: one interpreter that keeps its variables, and the process that stands before it.

    node ⇄ this process ⇄ interpreter (`python_shell.py`, `javascript.mjs`, bash)

The node writes one JSON object a line to stdin, and reads one a line from stdout. The interpreter
has a pipe each for stdout, stderr and what it reports. So whatever the code writes, and whatever
its child processes write, is output: only a line with the token, which the interpreter was told on
a pipe that no child inherits, is a report. Code that looks for the token in its own interpreter's
memory can find it, and then deceives nobody but the caller who sent that code.

This process is the leader of the group. An interrupt signals the whole group, as Ctrl-C would at a
terminal; the code's children end, too.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import sys

from context_interpreter import COMMANDS, PIECE, Interpreter, Outlet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PENDING = 256 * 1024
"""With more than this still to write, nothing is read from the interpreter."""


class Context:
    """Passes on what the node says to the interpreter, and the other way round."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._node = Outlet(sys.stdout.fileno())
        self._said = bytearray()
        self._waiting: list[dict[str, Any]] = []
        """Answers to give once the run under way has ended."""
        self._number = 0
        """Of the last run that began."""
        self._running = False
        self._interpreter: Interpreter | None = None
        self._waker, wake = os.pipe()
        for fd in (self._waker, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for each in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(each, lambda *_: None)

    def start(self) -> None:
        """Start an interpreter. Says `unavailable` if there is none."""
        try:
            self._interpreter = Interpreter(self._language)
        except OSError as error:
            why = "is not in this image" if error.errno == errno.ENOENT else str(error)
            self._say("unavailable", detail=f"{COMMANDS[self._language][0]} {why}")

    def serve(self) -> None:
        """Go on until the node wants no more."""
        while True:
            self._node.write()
            for fd in self._ready():
                if fd == sys.stdin.fileno():
                    if not self._hear():
                        return
                elif fd == self._waker:
                    self._reap()
                elif self._interpreter is not None:
                    self._interpreter.attend(fd, self._say)
            self._note_end()
            self._begin()
            if self._interpreter is not None:
                self._interpreter.commands.write()

    def _ready(self) -> list[int]:
        """Wait until something can be read or written; return what can be read."""
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        poll.register(sys.stdin.fileno(), select.POLLIN)
        if self._node.pending:
            poll.register(self._node.fd, select.POLLOUT)
        if self._interpreter is not None:
            if self._interpreter.commands.pending:
                poll.register(self._interpreter.commands.fd, select.POLLOUT)
            if len(self._node.pending) < PENDING:
                for fd in self._interpreter.reading:
                    poll.register(fd, select.POLLIN)
        return [fd for fd, events in poll.poll() if events & ~select.POLLOUT]

    def _hear(self) -> bool:
        """Do what the node says. Return whether it may say more."""
        data = os.read(sys.stdin.fileno(), 16 * PIECE)
        self._said += data
        *lines, rest = self._said.split(b"\n")
        self._said = bytearray(rest)
        for line in lines:
            said = json.loads(line)
            if said["do"] in {"run", "hello"}:
                self._waiting.append(said)
            elif said["do"] == "interrupt":
                self._interrupt(said["run"])
            else:
                self._end_interpreter()
                for each in self._waiting:
                    self._number = each["run"]
                    self._say("gone", exit_code=0, signal=0)
                self._waiting.clear()
                if said["do"] == "restart":
                    self.start()
        return bool(data)

    def _begin(self) -> None:
        """Have the next code run, or answer the next greeting, if it is its turn."""
        while self._waiting and not self._running:
            said = self._waiting.pop(0)
            self._number = said["run"]
            if self._interpreter is None:
                self._say("gone", exit_code=0, signal=0)
            elif said["do"] == "run":
                self._running = True
                self._interpreter.run(self._number, said["code"], said["env"])
            else:
                # A node that begins to listen may begin within a line.
                self._node.pending += b"\n"
                if self._interpreter.ready:
                    self._say("ready")

    def _interrupt(self, number: int) -> None:
        """Interrupt a run; 0 stands for the one that is under way, whichever it is."""
        if self._running and number in {0, self._number} and self._interpreter is not None:
            self._interpreter.interrupt(self._number)

    def _note_end(self) -> None:
        if self._interpreter is not None and self._interpreter.ended:
            self._interpreter.ended = False
            self._running = False

    def _reap(self) -> None:
        """Collect children that have ended. If the interpreter is among them, tell how."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._waker, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._interpreter is not None and pid == self._interpreter.pid:
                self._interpreter.catch_up(self._say)
                self._gone(os.waitstatus_to_exitcode(status))

    def _end_interpreter(self) -> None:
        """Kill the interpreter, and all that it has started in this group."""
        while others := group():
            for pid in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self._interpreter is not None:
                os.waitpid(self._interpreter.pid, 0)
                self._gone(-signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)

    def _gone(self, code: int) -> None:
        if self._interpreter is not None:
            self._interpreter.close()
        self._interpreter = None
        self._running = False
        self._say("gone", exit_code=max(code, 0), signal=max(-code, 0))

    def _say(self, say: str, **fields: object) -> None:
        line = json.dumps({"say": say, "run": self._number, **fields}, ensure_ascii=False)
        self._node.pending += line.encode("utf-8", "replace") + b"\n"


def group() -> list[int]:
    """Return the other processes of this process's group that have not ended."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name before may hold any character (proc_pid_stat(5)).
                state, _, pgrp = file.read().rpartition(b")")[2].split()[:3]
                if int(pgrp) == os.getpgrp() and state not in {b"Z", b"X"}:
                    found.append(int(name))
    return found


def main(language: str) -> None:
    """Serve a context."""
    context = Context(language)
    context.start()
    with contextlib.suppress(BrokenPipeError):
        context.serve()


if __name__ == "__main__":
    main(sys.argv[1])
