"""A process of a sandbox that lives: starts it, feeds it, signals it, and reports its end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import struct
import time

from attached import PATIENCE_S, Reader
from inputs import Input
from logs import Log
from loop import IN
from streams import Stream
from wire import PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Any

    from programs import Programs
    from streams import Streams

FIONREAD = 0x541B
TIOCSWINSZ = 0x5414
TERM = "xterm-256color"
NO_CAUSE = {"exit_code": None, "signal": None}
PTY_BUFFERED = 128 * 1024
"""More than a terminal can hold in its buffers (Linux, tty_buffer.c)."""


class Process(Stream):
    """A program, from the command that starts it until it is forgotten."""

    stays = True

    def __init__(
        self, streams: Streams, number: int, command: dict[str, Any], programs: Programs
    ) -> None:
        super().__init__(streams, number)
        self.label: str = command["label"]
        self.log = Log(command["keep_bytes"])
        self.readers: list[Reader] = []
        self.pid = 0
        self.status: int | None = None
        """Its status from waitpid(2)."""
        self.put_out: int | None = None
        """How much output it had written when it ended; the log has taken all of it."""
        self._programs = programs
        self._loop = programs.loop
        self._program = bytearray()
        self._program_bytes: int = command["program_bytes"]
        self._size: dict[str, int] | None = command["terminal"]
        self._has_stdin: bool = command["stdin"]
        self._input: Input | None = None
        self._outputs: dict[int, int] = {}
        """The descriptors that are read, and the kind of each."""
        self._owed: dict[int, int] = {}
        """How much of each must be read before the process's end may be reported."""
        self._held = False
        """Whether reading has stopped, so that no reader loses anything."""
        self._looked_after = False
        self._awaited = False
        """Whether a reader keeps up with it."""

    # ---- The start -------------------------------------------------------------------------------

    def take(self, payload: bytes) -> None:
        """Take a piece of the program, and then of its input."""
        if not self.pid:
            self._program += payload
            if len(self._program) >= self._program_bytes:
                self._start()
        elif self._input is not None:
            self._input.add(payload)
        else:
            super().take(payload)

    def _start(self) -> None:
        try:
            self._spawn(**json.loads(self._program))
        except (OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else errno.EINVAL
            self.end("not_started", error=errno.errorcode.get(number or 0, "EIO"))
        else:
            self._program.clear()
            self._programs.running[self.pid] = self
            self.say("started")
            self._listen()

    def _spawn(self, argv: list[str], env: dict[str, str], cwd: str, interpret: bool) -> None:  # noqa: ARG002, FBT001 - as the message has it
        ours: list[int] = []
        theirs: list[int] = []
        try:
            actions = self._terminal(ours, theirs) if self._size else self._pipes(ours, theirs)
            if self._size:
                env = {"TERM": TERM, **env}
            self.pid = self._programs.spawner.spawn(argv, env, cwd, actions)
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        for fd in ours:
            os.set_blocking(fd, False)
        if self._size or self._has_stdin:
            self._input = Input(self, self._loop, ours.pop(), terminal=bool(self._size))
        self._outputs = {fd: kind for kind, fd in enumerate(ours)}

    def _terminal(self, ours: list[int], theirs: list[int]) -> list[tuple[Any, ...]]:
        master, slave = os.openpty()
        theirs.append(slave)
        ours.append(master)
        self._set_size(master)
        ours.append(os.dup(master))  # one to read, the other to write
        # The first terminal that a session leader opens becomes its controlling one (tty(4)).
        opened = (os.POSIX_SPAWN_OPEN, 0, os.ttyname(slave), os.O_RDWR, 0)
        return [opened, (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]

    def _pipes(self, ours: list[int], theirs: list[int]) -> list[tuple[Any, ...]]:
        actions: list[tuple[Any, ...]] = []
        for target in (1, 2):
            source, sink = os.pipe()
            ours.append(source)
            theirs.append(sink)
            actions.append((os.POSIX_SPAWN_DUP2, sink, target))
        if not self._has_stdin:
            return [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), *actions]
        source, sink = os.pipe()
        ours.append(sink)
        theirs.append(source)
        return [(os.POSIX_SPAWN_DUP2, source, 0), *actions]

    # ---- What the worker says --------------------------------------------------------------------

    def obey(self, command: dict[str, Any]) -> None:
        """Obey a command about this process."""
        do = command["do"]
        if do == "signal":
            self._signal(command["number"])
        elif do in {"close_stdin", "finish"}:
            if self._input is not None:
                self._input.finish()
        elif do == "resize":
            self._size = command["terminal"]
            for fd in self._outputs:
                with contextlib.suppress(OSError):
                    self._set_size(fd)
        elif do == "forget":
            self._signal(signal.SIGKILL)
            self.end("done", more=False)
        else:
            super().obey(command)

    def cancel(self) -> None:
        """Do nothing: only a signal ends a process."""

    def meet(self) -> None:
        """Begin again with another connection."""
        super().meet()
        if self._input is not None:
            self._input.meet()

    def facts(self) -> dict[str, object]:
        """Return what the node is told about it."""
        return {
            "process": self.number,
            "label": self.label,
            "terminal": self._size is not None,
            "stdin": self._input is not None and self._input.open,
            "output": self.log.total,
            "ended": self.put_out is not None,
            **(self._cause() if self.put_out is not None else NO_CAUSE),
        }

    def _signal(self, number: int) -> None:
        if self.pid and self.status is None:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, number)

    def _set_size(self, fd: int) -> None:
        if self._size:
            size = struct.pack("4H", self._size["rows"], self._size["columns"], 0, 0)
            fcntl.ioctl(fd, TIOCSWINSZ, size)

    def release(self) -> None:
        """Discard its output; still read its children's, because SIGPIPE would end them."""
        for reader in self.readers.copy():
            reader.leave()
        if self._input is not None:
            self._input.close()
        self.log = Log(0)
        self.put_out = 0  # nobody must hear of its end
        self._listen()

    # ---- Its output ------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._held = False
        for fd in self._outputs:
            self._loop.watch(fd, IN, lambda events, fd=fd: self._turn(fd, events))

    def _turn(self, fd: int, events: int) -> None:
        if events & IN or self._size:
            self._read(fd)
        else:  # a pipe that is empty, and that nobody can write to any more
            self._close(fd)
            self._tell_end()

    def _read(self, fd: int) -> None:
        """Read a piece, unless a reader would then lose something."""
        if (room := self._room()) <= 0:
            self._hold()
            return
        owed = fd in self._owed  # its end waits for these bytes, which are few
        if not owed and not self._awaited and not self._programs.may_read(self):
            self._rest()
            return
        before = self.log.total
        try:
            size = self.log.take(fd, self._outputs[fd], room)
        except BlockingIOError:
            self._owed.pop(fd, None)
        except OSError:  # EIO: nobody holds the terminal open any more
            self._close(fd)
        else:
            if size:
                self._programs.has_read(size)
                self._pay(fd, size)
            else:
                self._close(fd)
            for reader in self.readers:
                reader.heard(before)
        self._tell_end()

    def _pay(self, fd: int, size: int) -> None:
        if fd in self._owed:
            self._owed[fd] -= size
            if self._owed[fd] <= 0:
                del self._owed[fd]

    def _room(self) -> int:
        now = time.monotonic()
        keeping_up = [each.offset for each in self.readers if each.keeps_up(now)]
        self._awaited = bool(keeping_up)
        return self.log.room(min(keeping_up)) if keeping_up else PIECE

    def _rest(self) -> None:
        """Read nothing until somebody calls `go_on`."""
        self._held = True
        for fd in self._outputs:
            self._loop.ignore(fd)

    def _hold(self) -> None:
        """Read nothing until a reader has taken something, or nothing for too long."""
        self._rest()
        if not self._looked_after:
            self._looked_after = True
            self._loop.after(PATIENCE_S, self._look)

    def _look(self) -> None:
        self._looked_after = False
        self.go_on()
        if self._held:
            self._hold()

    def go_on(self) -> None:
        """Read again if reading had stopped and there is room now."""
        if self._held and self._room() > 0:
            self._listen()

    def _close(self, fd: int) -> None:
        self._loop.ignore(fd)
        del self._outputs[fd]
        self._owed.pop(fd, None)
        os.close(fd)

    # ---- The end ---------------------------------------------------------------------------------

    def reap(self, status: int) -> None:
        """Learn that it has ended. Read what is in its pipes now before reporting that."""
        self.status = status
        if self._input is not None:
            self._input.close()
        for fd in list(self._outputs):
            if owed := PTY_BUFFERED if self._size else waiting_in(fd):
                self._owed[fd] = owed
        for fd in list(self._owed):
            while fd in self._owed and not self._held:
                self._read(fd)
        self._tell_end()

    def _tell_end(self) -> None:
        if self.status is None or self._owed:
            return
        if not self._outputs:
            self.log.close()
        if self.put_out is None:
            self.put_out = self.log.total
            self.say("exited", output=self.put_out, **self._cause())
            for reader in self.readers:
                self.streams.wake(reader)

    def _cause(self) -> dict[str, int | None]:
        code = os.waitstatus_to_exitcode(self.status or 0)
        return {
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
        }


def waiting_in(pipe: int) -> int:
    """Return how many bytes are in a pipe (pipe(7))."""
    return int(struct.unpack("i", fcntl.ioctl(pipe, FIONREAD, b"\0" * 4))[0])
