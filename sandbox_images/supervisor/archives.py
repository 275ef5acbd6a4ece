"""A folder as a tar archive, which tar(1) writes or reads.

tar runs as any other program here: with the rights that the client's own programs have. So what it
does in a hostile folder, and what somebody does to it, is no more than these can do themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal

from filing import Filing
from inputs import Input
from loop import IN
from process import waiting_in
from wire import PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from collections.abc import Iterator
    from typing import Any

    from places import Places
    from programs import Programs
    from streams import Streams

TAR = "/bin/tar"
ALWAYS = ("--file=-", "--blocking-factor=128", "--quoting-style=escape")
WRITES = ("--create", "--format=gnu", "--sparse", "--owner=0", "--group=0", "--numeric-owner", ".")
READS = ("--extract", "--read-full-records", "--no-same-owner", "--preserve-permissions",
         "--no-overwrite-dir", "--warning=no-timestamp")  # fmt: skip
ENVIRONMENT = {"LC_ALL": "C", "TAR_OPTIONS": ""}
MOST_SAID = 1024


class Archive(Filing):
    """One tar, from its start until it has ended and what it wrote was sent."""

    options: tuple[str, ...]

    def __init__(
        self,
        streams: Streams,
        number: int,
        places: Places,
        programs: Programs,
        command: dict[str, Any],
    ) -> None:
        super().__init__(streams, number, places, command)
        self._programs = programs
        self._pid = 0
        self._status: int | None = None
        self._said = b""
        self._output: int | None = None
        self._complaints: int | None = None
        self._input: Input | None = None
        self._early: list[bytes] = []
        """What came before tar was started."""
        self._finished = False
        """Whether nothing more comes."""

    def take(self, payload: bytes) -> None:
        """Take a piece of what it reads."""
        if self._input is None:
            self._early.append(payload)
        else:
            self._input.add(payload)

    def obey(self, command: dict[str, Any]) -> None:
        """Learn that no more bytes follow."""
        if command["do"] != "finish":
            super().obey(command)
        self._finished = True
        if self._input is not None:
            self._input.finish()

    def step(self) -> bool:
        """Start it, and later go on with another window."""
        if not self._pid:
            return super().step()
        self._go_on()
        return False

    def work(self, command: dict[str, Any]) -> Iterator[bool]:
        """Start tar in the folder; everything else happens when it reads, writes or ends."""
        with contextlib.closing(self.places.find(command["path"], follow=True)) as place:
            folder, status = self.places.open(place, os.O_RDONLY | os.O_DIRECTORY)
            os.close(folder)
        self._spawn(place.path)
        self.found(place.path, status)
        yield False

    def release(self) -> None:
        """Kill it if it still runs."""
        super().release()
        if self._pid and self._status is None:
            with contextlib.suppress(OSError):
                os.killpg(self._pid, signal.SIGKILL)
        if self._input is not None:
            self._input.close()
        self._close_output()
        self._close_complaints()

    def reap(self, status: int) -> None:
        """Learn that it has ended."""
        self._status = status
        if self._input is not None:
            self._input.close()
        self._hear(0)
        self._close_complaints()
        self._go_on()

    def _spawn(self, folder: str) -> None:
        ours: list[int] = []
        theirs: list[int] = []
        actions = []
        try:
            for target, written in ((0, False), (1, True), (2, True)):
                source, sink = os.pipe()
                mine, its = (source, sink) if written else (sink, source)
                ours.append(mine)
                theirs.append(its)
                actions.append((os.POSIX_SPAWN_DUP2, its, target))
            argv = [TAR, *ALWAYS, *self.options]
            self._pid = self._programs.spawner.spawn(argv, ENVIRONMENT, folder, actions)
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        for fd in ours:
            os.set_blocking(fd, False)
        stdin, self._output, self._complaints = ours
        self._input = Input(self, self._programs.loop, stdin, terminal=False)
        self._programs.running[self._pid] = self
        self._programs.loop.watch(self._complaints, IN, self._hear)
        self._programs.loop.watch(self._output, IN, self._read)
        for each in self._early:
            self._input.add(each)
        self._early.clear()
        if self._finished:
            self._input.finish()

    def _go_on(self) -> None:
        """Read what it writes if there is room for it, and end after it."""
        if self._output is None:
            self._end()
        elif self._status is not None and not waiting_in(self._output):
            # A process that holds the pipe open is none of ours.
            self._close_output()
            self._end()
        elif self.window > 0:
            self._programs.loop.watch(self._output, IN, self._read)
        else:
            self._programs.loop.ignore(self._output)

    def _read(self, _: int) -> None:
        if self._output is None or self.window <= 0:
            return
        try:
            data = os.read(self._output, PIECE)
        except BlockingIOError:
            return
        if data:
            self.send(b"D", data)
        else:
            self._close_output()
        self._go_on()

    def _hear(self, _: int) -> None:
        """Keep the beginning of what it complains about."""
        if self._complaints is None:
            return
        try:
            said = os.read(self._complaints, PIECE)
        except BlockingIOError:
            return
        self._said = (self._said + said)[:MOST_SAID]
        if not said:
            self._close_complaints()

    def _end(self) -> None:
        if self._status is None or self.streams.open.get(self.number) is not self:
            return
        code = os.waitstatus_to_exitcode(self._status)
        self.end(
            "archived",
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            said=self._said.decode("ascii", "replace"),
        )

    def _close_output(self) -> None:
        if self._output is not None:
            self._programs.loop.ignore(self._output)
            os.close(self._output)
            self._output = None

    def _close_complaints(self) -> None:
        if self._complaints is not None:
            self._programs.loop.ignore(self._complaints)
            os.close(self._complaints)
            self._complaints = None


class Pack(Archive):
    """The content of a folder, as an archive."""

    options = WRITES

    def work(self, command: dict[str, Any]) -> Iterator[bool]:
        """Have it read nothing."""
        self._finished = True
        return super().work(command)


class Unpack(Archive):
    """An archive, whose contents are written into a folder."""

    options = READS
