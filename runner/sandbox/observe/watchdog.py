"""The thread that ends a sandbox when its time is up, whatever holds up the event loop.

The loop ends programs at their deadline, and stops what runs under a lease that it could not renew.
All tenants share that loop, and a worker under load may come back to it too late. Then this thread
ends the sandbox: first through the kernel, as Docker may be what everybody waits for. It tries
again until none of the sandbox's processes is left.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from threading import Condition, Thread

import structlog

from runner.sandbox.observe.cgroups import Counters

HELD_UP_S = 1.0
"""A thread that wakes so late was stopped with its whole process: SIGSTOP, a suspended host."""
CATCH_UP_S = 2.0
"""How long the loop then has to hear of a program that ended meanwhile."""

AGAIN_S = 1.0
"""How long after an attempt to end a container it is looked whether that has ended it."""

_log = structlog.get_logger("runner.worker")

Read = Callable[[str], Counters]
"""Tells what a container has used, from any thread."""
Kill = Callable[[str], object]
"""Ends a container from any thread."""
Lives = Callable[[str], object]
"""Tells from any thread whether processes are left in a container; true, too, if it raises."""


class Term(StrEnum):
    """The reason why a sandbox may live until a point in time, and no longer."""

    DEADLINE = "deadline"
    LEASE = "lease"
    MEMORY = "memory"
    """It holds more than it may; see `runner.sandbox.observe.keeper`."""
    LIMITS = "limits"
    """A limit of its was changed, and cannot be set back."""
    OVER = "over"
    """Its use is over: by then it is to be gone."""


@dataclass(frozen=True, slots=True)
class Fired:
    """That a sandbox was ended here."""

    term: Term
    at: float
    used: Counters


class Watchdog:
    """Knows until when each container may live, by the clock of `time.monotonic`."""

    def __init__(self, read: Read, kill: Kill, lives: Lives) -> None:
        self._read = read
        self._kill = kill
        self._lives = lives
        self._guarded: set[str] = set()
        self._until: dict[tuple[str, Term], float] = {}
        self._fired: dict[str, Fired] = {}
        self._abandoned: set[str] = set()
        self._changed = Condition()
        self._wakes_at = float("inf")
        self._stopping = False
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)

    @classmethod
    @contextmanager
    def running(cls, read: Read, kill: Kill, lives: Lives) -> Iterator["Watchdog"]:
        """Watch while the context lasts."""
        watchdog = cls(read, kill, lives)
        watchdog._thread.start()
        try:
            yield watchdog
        finally:
            with watchdog._changed:
                watchdog._stopping = True
                watchdog._changed.notify()
            watchdog._thread.join()

    @property
    def alive(self) -> bool:
        """Whether its thread goes on."""
        return self._thread.is_alive()

    def guard(self, container: str) -> None:
        """Take charge of a container, until it is forgotten."""
        with self._changed:
            self._guarded.add(container)

    def arm(self, container: str, term: Term, until: float) -> None:
        """Let the container live until then; what was said of this term before is void.

        That of a container that nobody guards any more comes too late, and means nothing.
        """
        with self._changed:
            if container in self._guarded and container not in self._fired:
                self._set(container, term, until)

    def disarm(self, container: str, term: Term) -> None:
        """Let the container live on."""
        with self._changed:
            if container not in self._fired:
                self._until.pop((container, term), None)

    def fired(self, container: str) -> Fired | None:
        """Return how it was ended here, if it was; once disarmed, a term no longer ends it."""
        with self._changed:
            return self._fired.get(container)

    def forget(self, container: str) -> None:
        """Drop all that is known of a container that is gone."""
        with self._changed:
            self._forget(container)

    def abandon(self, container: str) -> None:
        """End the container now, and forget it once it is dead: nobody else can remove it."""
        with self._changed:
            if container in self._guarded:
                self._abandoned.add(container)
                self._set(container, Term.OVER, time.monotonic())

    def _set(self, container: str, term: Term, until: float) -> None:
        self._until[container, term] = until
        if until < self._wakes_at:
            self._changed.notify()

    def _forget(self, container: str) -> None:
        self._drop(container)
        self._fired.pop(container, None)
        self._guarded.discard(container)
        self._abandoned.discard(container)

    def _drop(self, container: str) -> None:
        for term in Term:
            self._until.pop((container, term), None)

    def _watch(self) -> None:
        while (due := self._wait()) is not None:
            container, term, again = due
            if (again or term is Term.OVER) and not self._left(container):
                self._settle(container)
                continue
            try:
                self._kill(container)
            except Exception as error:  # noqa: BLE001 - the next sandbox has to be ended all the same
                _log.error("watchdog_failed", container=container, term=term, error=str(error))
            else:
                event = "sandbox_killed_again" if again else "sandbox_ended_by_watchdog"
                _log.warning(event, container=container, term=term)

    def _left(self, container: str) -> bool:
        try:
            return bool(self._lives(container))
        except Exception as error:  # noqa: BLE001 - it may live, and the next sandbox has its turn
            _log.error("life_not_read", container=container, error=str(error))
            return True

    def _settle(self, container: str) -> None:
        """Let a container be that is dead."""
        with self._changed:
            self._drop(container)
            if container in self._abandoned:
                self._forget(container)

    def _wait(self) -> tuple[str, Term, bool] | None:
        """Return what is due, and whether it is again; None when there is nothing to watch."""
        with self._changed:
            while not self._stopping:
                due = min(self._until, key=self._until.__getitem__, default=None)
                self._wakes_at = self._until[due] if due else float("inf")
                late = time.monotonic() - self._wakes_at
                if due is None or late < 0:
                    self._changed.wait(-late if due else None)
                elif due[0] in self._fired:
                    self._drop(due[0])
                    self._until[due] = time.monotonic() + AGAIN_S
                    return *due, True
                elif due[1] is Term.DEADLINE and late > HELD_UP_S:
                    self._until[due] = time.monotonic() + CATCH_UP_S
                else:
                    self._drop(due[0])
                    # On record before it is done: who sees the end can tell whose doing it was.
                    self._fired[due[0]] = Fired(due[1], time.monotonic(), self._used(due[0]))
                    self._until[due] = time.monotonic() + AGAIN_S
                    return *due, False
        return None

    def _used(self, container: str) -> Counters:
        try:
            return self._read(container)
        except Exception as error:  # noqa: BLE001 - it has to be ended, whatever it has used
            _log.error("usage_not_read", container=container, error=str(error))
            return Counters()
