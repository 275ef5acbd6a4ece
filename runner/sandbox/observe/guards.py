"""The guards of a node's sandboxes: the threads that hold them to their limits and their times."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from runner.sandbox.observe.cgroups import Cgroups
from runner.sandbox.observe.keeper import Keeper
from runner.sandbox.observe.watchdog import Kill, Watchdog
from runner.words.errors import LaunchFailed


@dataclass(frozen=True, slots=True)
class Guards:
    """The kernel's counters, and the two threads that act on them."""

    cgroups: Cgroups
    watchdog: Watchdog
    keeper: Keeper

    @classmethod
    @contextmanager
    def standing(cls, cgroups: Cgroups, kill: Kill) -> Iterator["Guards"]:
        """Guard while the context lasts; `kill` ends a container from any thread."""
        with (
            Watchdog.running(cgroups.read, kill, cgroups.processes) as watchdog,
            Keeper.running(cgroups, watchdog) as keeper,
        ):
            yield cls(cgroups, watchdog, keeper)

    def take(self, container: str, config: Mapping[str, Any]) -> None:
        """Take charge of a container, and hold it to the limits of its configuration.

        Raises LaunchFailed when a limit cannot be set.
        """
        self.watchdog.guard(container)
        try:
            self.keeper.keep(container, self.cgroups.limits(config["HostConfig"]))
        except OSError as error:
            raise LaunchFailed(f"a limit of the sandbox cannot be set: {error}") from error

    @property
    def failing(self) -> Mapping[str, str]:
        """The present faults, by the names of the threads that do not do their work."""
        threads: dict[str, Watchdog | Keeper] = {
            "ending sandboxes in time": self.watchdog,
            "keeping sandboxes' limits": self.keeper,
        }
        return {
            name: "its thread has ended; restart the worker"
            for name, thread in threads.items()
            if not thread.alive
        }
