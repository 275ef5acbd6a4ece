"""The container that a sandbox lives in, as its node holds it: counted, ended, removed.

Nothing here asks the supervisor. The kernel ends what has to end, and Docker only what this worker
may not kill: while Docker is away, nothing outlives its time.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from runner.base.tasks import uninterrupted
from runner.sandbox.engine.docker import Engine
from runner.sandbox.guest.pace import Pace, TenantPaces
from runner.sandbox.observe.cgroups import Counters, InUse
from runner.sandbox.observe.guards import Guards
from runner.sandbox.observe.isolation import EffectiveIsolation, read_isolation
from runner.sandbox.observe.traces import traces
from runner.sandbox.observe.watchdog import Fired, Term
from runner.words.errors import RunnerError
from runner.words.sandbox import SHARE_THE_KERNEL

_LOOK_S = 0.05
_REMOVED_S = 3.0
"""How long Docker may take to remove a container, before the watchdog ends what runs in it."""

_log = structlog.get_logger("runner.worker")


class Container:
    """One started container, with the folder that is mounted into it alone."""

    def __init__(
        self,
        id: str,  # noqa: A002 - it is the container's id, and Docker's word for it
        home: Path,
        *,
        engine: Engine,
        guards: Guards,
        paces: TenantPaces,
        facts: Mapping[str, Any] | None,
        on_removed: Callable[[], None],
    ) -> None:
        """Read how it is isolated. `facts`: what Docker says of it, None if it is gone already."""
        self.id = id
        self.home = home
        self.alive = True
        """False from the moment at which we have ended it, or found it dead."""
        self.isolation: EffectiveIsolation | None = read_isolation(facts) if facts else None
        """How it was isolated before anything ran in it."""
        self.paused = bool(facts and facts["State"]["Paused"])
        """Whether it is frozen, or may be."""
        self.pace = Pace()
        """The share of the event loop that reading from it may take."""
        self._facts = facts or {}
        self._engine = engine
        self._cgroups = guards.cgroups
        self._watchdog = guards.watchdog
        self._keeper = guards.keeper
        self._paces = paces
        self._on_removed = on_removed

    def assign(self, tenant: str) -> None:
        """Count what it uses as this tenant's: tenants get equal parts of scarce processors.

        So is what it takes of the event loop.
        """
        self.pace.within = self._paces.of(tenant)
        self._keeper.assign(self.id, tenant)

    def counters(self) -> Counters:
        """Return what has been used in it so far. Its group outlives it by the moment it takes."""
        return self._cgroups.read(self.id)

    def in_use(self) -> InUse:
        """Return what it holds now."""
        return self._cgroups.in_use(self.id)

    def disk_bytes(self) -> int | None:
        """Return how much its writable folders hold; None if this host cannot tell."""
        # Under gVisor, they are inside its own kernel. Otherwise they are mounts of a root that is
        # read-only, so nothing in the sandbox can put a link in their place.
        if self.isolation is None or self.isolation.runtime not in SHARE_THE_KERNEL:
            return None
        root = f"/proc/{self._facts['State']['Pid']}/root"
        try:
            home = self._facts["Config"]["WorkingDir"]
            found = [os.statvfs(f"{root}{folder}") for folder in (home, "/tmp")]  # noqa: S108
        except OSError:
            return None
        return sum((each.f_blocks - each.f_bfree) * each.f_frsize for each in found)

    def forget_peak(self) -> None:
        """Count the peak of memory anew, for the next program."""
        self._cgroups.forget_peak(self.id)

    def traces(self) -> list[str]:
        """Return the kinds of what its programs have left in it, as far as the host sees them."""
        return traces(self._facts, self.isolation, self._cgroups)

    def end_by(self, term: Term, until: float | None) -> None:
        """End all that runs in it by then, by the clock of `time.monotonic`; None: no more.

        A thread of its own does that, whatever holds up the event loop.
        """
        if until is None:
            self._watchdog.disarm(self.id, term)
        else:
            self._watchdog.arm(self.id, term, until)

    @property
    def fired(self) -> Fired | None:
        """How that thread has ended it, if it has."""
        return self._watchdog.fired(self.id)

    async def kill(self) -> None:
        """Kill all that runs in it. When some of it is left, raises what Docker does."""
        self.alive = False
        if self.paused:
            await self._let_die()
        try:
            if await asyncio.to_thread(self._cgroups.end, self.id):
                return
        except OSError as error:
            _log.warning("not_killed_by_kernel", sandbox=self.home.name, error=str(error))
        try:
            await self._engine.kill(self.id)
        except RunnerError:
            if await asyncio.to_thread(self._cgroups.processes, self.id):
                self.end_by(Term.OVER, time.monotonic())
                raise

    async def pause(self) -> None:
        """Freeze all that runs in it. Raises what Docker does."""
        self.paused = True
        await self._engine.pause(self.id)

    async def resume(self) -> None:
        """Let it go on; nothing if it is not frozen. Raises what Docker does."""
        await self._engine.resume(self.id)
        self.paused = False

    async def _let_die(self) -> None:
        """Kill what is frozen in it, which dies as it thaws; Docker waits for that otherwise."""
        try:
            await asyncio.to_thread(self._cgroups.kill, self.id)
            await self.resume()
        except (OSError, RunnerError) as error:
            # Docker does both, more slowly.
            _log.warning("not_thawed", sandbox=self.home.name, error=str(error))

    async def died_of_memory(self) -> bool:
        """Return whether the kernel ended it for its memory, as Docker tells it."""
        return bool((await self._engine.state(self.id)).get("OOMKilled"))

    async def died_of_memory_by(self, until: float) -> bool:
        """Return the same of one whose supervisor has just hung up, which Docker hears of later.

        Waits for that until then, by the clock of `time.monotonic`.
        """
        while (state := await self._engine.state(self.id)).get("Running"):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(_LOOK_S)
        return bool(state.get("OOMKilled"))

    async def remove(self) -> None:
        """Remove it and its folder, even if cancelled meanwhile. Safe to repeat.

        When Docker does not answer, raises DockerUnavailable: what runs in it is ended all the
        same, and `reap.remove_strays` then finds the rest.
        """
        await uninterrupted(self._remove())

    async def _remove(self) -> None:
        self.alive = False
        self.end_by(Term.OVER, time.monotonic() + _REMOVED_S)
        if self.paused:
            await self._let_die()
        try:
            try:
                await self._engine.remove(self.id)
            except BaseException:
                self._watchdog.abandon(self.id)
                raise
            self._watchdog.forget(self.id)
            await asyncio.to_thread(shutil.rmtree, self.home, ignore_errors=True)
        finally:
            self._on_removed()
