"""The limits of living sandboxes: looked at all the time, set back when changed, held where soft.

With systemd as cgroup driver, `systemctl daemon-reload` writes what a unit says into its control
group again. runc 1.1 writes the limit of swap past systemd, whose unit says infinity: a reload
lifts it. A sandbox whose limit cannot be set back is ended.

Version 1 of control groups counts the buffers of sockets apart, and lets each socket have its first
ones beyond that limit. A sandbox in which they and its memory are more than both limits is ended.

All sandboxes together weigh less than the parts that serve them, when processors are short, and
each tenant's together as much as another's (`weights`).

A thread does this, as the event loop may be busy; the watchdog ends what is to end.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Lock, Thread

import structlog

from runner.sandbox.observe.cgroups import Cgroups
from runner.sandbox.observe.watchdog import Term, Watchdog
from runner.sandbox.observe.weights import Weights

EVERY_S = 0.25
WEIGHTS_EVERY = 4
"""Weights are set at each so many looks: they are no wall, and to read what was used costs time."""

_log = structlog.get_logger("runner.worker")


class Keeper:
    """Knows the limits that each container shall have."""

    def __init__(self, cgroups: Cgroups, watchdog: Watchdog) -> None:
        self._cgroups = cgroups
        self._watchdog = watchdog
        self._limits: dict[str, Mapping[str, int]] = {}
        self._weights = Weights(cgroups)
        self._weighs = True
        """False from a failure to set weights until it works again."""
        self._lock = Lock()
        self._stopping = Event()
        self._thread = Thread(target=self._look, name="keeper", daemon=True)

    @classmethod
    @contextmanager
    def running(cls, cgroups: Cgroups, watchdog: Watchdog) -> Iterator["Keeper"]:
        """Look while the context lasts."""
        keeper = cls(cgroups, watchdog)
        keeper._thread.start()
        try:
            yield keeper
        finally:
            keeper._stopping.set()
            keeper._thread.join()

    @property
    def alive(self) -> bool:
        """Whether its thread goes on."""
        return self._thread.is_alive()

    def keep(self, container: str, limits: Mapping[str, int]) -> None:
        """Set the container's limits now, and hold it to them while it lives. Raises OSError."""
        self._cgroups.set_limits(container, limits)
        with self._lock:
            self._limits[container] = limits

    def assign(self, container: str, tenant: str) -> None:
        """Count the container's processor time as this tenant's while it lives."""
        self._weights.assign(container, tenant)

    def _look(self) -> None:
        looks = 0
        while not self._stopping.wait(EVERY_S):
            looks += 1
            if looks % WEIGHTS_EVERY == 0:
                self._weigh()
            with self._lock:
                limits = dict(self._limits)
            for container, wanted in limits.items():
                if not self._holds(container, wanted):
                    with self._lock:
                        self._limits.pop(container, None)

    def _weigh(self) -> None:
        try:
            self._cgroups.weigh()
            self._weights.weigh()
        except Exception as error:  # noqa: BLE001 - the thread goes on for the limits
            # A weight is no wall. It is tried again, and told once.
            if self._weighs:
                _log.error("weight_not_set", error=str(error))
            self._weighs = False
        else:
            self._weighs = True

    def _holds(self, container: str, wanted: Mapping[str, int]) -> bool:
        """Set back what was changed; False if the container is gone, or has to end."""
        try:
            if not self._cgroups.lives(container):
                return False
            changed = self._cgroups.set_limits(container, wanted)
            too_much = self._cgroups.holds_too_much(container, wanted)
        except Exception as error:  # noqa: BLE001 - the thread goes on for all other containers
            _log.error("limit_lost", container=container, error=str(error))
            self._watchdog.arm(container, Term.LIMITS, time.monotonic())
            return False
        if changed:
            _log.warning("limit_set_back", container=container, limits=changed)
        if too_much:
            self._watchdog.arm(container, Term.MEMORY, time.monotonic())
        return not too_much
