"""The thread that ends a sandbox when its time is up, whatever holds up the event loop.

The loop ends programs at their deadline, and stops what runs under a lease that it could not renew.
All tenants share that loop, and a worker under load may come back to it too late. Then this thread
ends the sandbox: first through the kernel, as Docker may be what everybody waits for.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from threading import Condition, Thread

import structlog

from runner.sandbox.cgroups import Counters

HELD_UP_S = 1.0
"""A thread that wakes so late was stopped with its whole process: SIGSTOP, a suspended host."""
CATCH_UP_S = 2.0
"""How long the loop then has to hear of a program that ended meanwhile."""

_log = structlog.get_logger("runner.worker")

Read = Callable[[str], Counters]
"""Tells what a container has used, from any thread."""
Kill = Callable[[str], None]
"""Ends a container from any thread."""


class Term(StrEnum):
    """Why a sandbox may live until a point in time, and no longer."""

    DEADLINE = "deadline"
    LEASE = "lease"
    MEMORY = "memory"
    """It holds more than it may; see `runner.sandbox.keeper`."""
    LIMITS = "limits"
    """A limit of its was changed, and cannot be set back."""


@dataclass(frozen=True, slots=True)
class Fired:
    """That a sandbox was ended here."""

    term: Term
    at: float
    used: Counters


class Watchdog:
    """Knows until when each container may live, by the clock of `time.monotonic`."""

    def __init__(self, read: Read, kill: Kill) -> None:
        self._read = read
        self._kill = kill
        self._until: dict[tuple[str, Term], float] = {}
        self._fired: dict[str, Fired] = {}
        self._changed = Condition()
        self._wakes_at = float("inf")
        self._stopping = False

    @classmethod
    @contextmanager
    def running(cls, read: Read, kill: Kill) -> Iterator["Watchdog"]:
        """Watch while the context lasts."""
        watchdog = cls(read, kill)
        thread = Thread(target=watchdog._watch, name="watchdog", daemon=True)
        thread.start()
        try:
            yield watchdog
        finally:
            with watchdog._changed:
                watchdog._stopping = True
                watchdog._changed.notify()
            thread.join()

    def arm(self, container: str, term: Term, until: float) -> None:
        """Let the container live until then; what was said of this term before is void."""
        with self._changed:
            if container in self._fired:
                return
            self._until[container, term] = until
            if until < self._wakes_at:
                self._changed.notify()

    def disarm(self, container: str, term: Term) -> None:
        """Let the container live on."""
        with self._changed:
            self._until.pop((container, term), None)

    def fired(self, container: str) -> Fired | None:
        """Return how the container was ended here, if it was; what is disarmed before will not."""
        with self._changed:
            return self._fired.get(container)

    def forget(self, container: str) -> None:
        """Drop all that is known of a container that is gone."""
        with self._changed:
            self._drop(container)
            self._fired.pop(container, None)

    def _drop(self, container: str) -> None:
        for term in Term:
            self._until.pop((container, term), None)

    def _watch(self) -> None:
        while (due := self._wait()) is not None:
            container, term = due
            try:
                self._kill(container)
            except Exception as error:  # noqa: BLE001 - the next sandbox has to be ended all the same
                _log.error("watchdog_failed", container=container, term=term, error=str(error))
            else:
                _log.warning("sandbox_ended_by_watchdog", container=container, term=term)

    def _wait(self) -> tuple[str, Term] | None:
        """Return what is due; None when there is nothing to watch any more."""
        with self._changed:
            while not self._stopping:
                due = min(self._until, key=self._until.__getitem__, default=None)
                self._wakes_at = self._until[due] if due else float("inf")
                late = time.monotonic() - self._wakes_at
                if due is None or late < 0:
                    self._changed.wait(-late if due else None)
                elif due[1] is Term.DEADLINE and late > HELD_UP_S:
                    self._until[due] = time.monotonic() + CATCH_UP_S
                else:
                    self._drop(due[0])
                    # On record before it is done: who sees the end can tell whose doing it was.
                    self._fired[due[0]] = Fired(due[1], time.monotonic(), self._used(due[0]))
                    return due
        return None

    def _used(self, container: str) -> Counters:
        try:
            return self._read(container)
        except Exception as error:  # noqa: BLE001 - it has to be ended, whatever it has used
            _log.error("usage_not_read", container=container, error=str(error))
            return Counters()
