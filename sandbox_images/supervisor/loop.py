"""Calls back on descriptors' events and after a time: the only place where PID 1 waits."""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from collections.abc import Callable

IN = select.EPOLLIN
OUT = select.EPOLLOUT
MOST = 256
"""How many events one turn takes. The next turn takes the others."""


class Loop:
    """Waits for events, and calls whoever asked for them. No callback may block or raise."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, int] = {}
        self._called: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def watch(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        """Call back on each of these events. A hang-up always counts as one."""
        before = self._watched.get(fd)
        self._called[fd] = call
        if before is None:
            self._epoll.register(fd, events)
        elif before != events:
            self._epoll.modify(fd, events)
        self._watched[fd] = events

    def ignore(self, fd: int) -> None:
        """Stop calling back. Must come before the descriptor is closed."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            del self._called[fd]

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call back once, after this time."""
        self._timers.append((time.monotonic() + seconds, call))

    def forget(self, call: Callable[[], None]) -> None:
        """Cancel all timers of this callback."""
        self._timers = [each for each in self._timers if each[1] != call]

    def wait(self, *, busy: bool) -> bool:
        """Wait for events and timers, unless `busy`, and make all calls that are due.

        Return whether there was any event, not only timers.
        """
        timeout = -1.0
        if busy:
            timeout = 0
        elif self._timers:
            timeout = max(0.0, min(when for when, _ in self._timers) - time.monotonic())
        happened = self._epoll.poll(timeout, MOST)
        for fd, events in happened:
            # An earlier callback may have ended what this event is about.
            if (call := self._called.get(fd)) is not None:
                call(events)
        if self._timers:
            self._ring(time.monotonic())
        return bool(happened)

    def _ring(self, now: float) -> None:
        due = [call for when, call in self._timers if when <= now]
        self._timers = [each for each in self._timers if each[0] > now]
        for call in due:
            call()
