"""The bridge to the egress proxy, for as long as a sandbox lives."""

from __future__ import annotations

import contextlib

from bridge import MAX_CONNECTIONS, Bridge, End
from loop import IN

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from loop import Loop


class LastingBridge(Bridge):
    """A bridge whose connections are served in the loop with everything else."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop
        self._listen()

    def _happened(self, fd: int, events: int) -> None:
        with contextlib.suppress(OSError):  # no descriptor is left: those that wait may go on
            self.handle(fd, events)
        for each, end in self.ends.items():
            if wanted := end.interest():
                self._loop.watch(each, wanted, lambda events, fd=each: self._happened(fd, events))
            else:
                self._loop.ignore(each)
        self._listen()

    def _listen(self) -> None:
        listener = self.listener.fileno()
        if len(self.ends) < 2 * MAX_CONNECTIONS:
            self._loop.watch(listener, IN, lambda events: self._happened(listener, events))
        else:
            self._loop.ignore(listener)

    def _drop(self, end: End) -> None:
        for each in (end, end.other):
            if (fd := each.socket.fileno()) >= 0:
                self._loop.ignore(fd)
        super()._drop(end)
