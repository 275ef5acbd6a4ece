"""Work that a process does as long as it lives: repeated when it fails, and never silently gone.

If nobody awaits a task, nobody sees its exception. So work that must go on for ever is a duty. Its
failure is logged, it begins again after longer and longer pauses, and `Duties` tells which duties
are failing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from runner.base.tasks import cancelled
from runner.words.errors import NotReady, RunnerError

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
"""Unless the duty is done less often anyway: whatever comes back is found within two seconds."""
STEADY_S = 10.0
"""Lasting work counts as working again when it has gone on for this long since a failure."""

T = TypeVar("T")
_log = structlog.get_logger("runner.duties")


class Duties:
    """The duties of one process."""

    def __init__(self) -> None:
        self._kept: set[_Duty] = set()

    @property
    def failing(self) -> Mapping[str, str]:
        """The present faults, by the names of the duties that do not do their work."""
        return {duty.name: duty.fault for duty in self._kept if duty.fault and not duty.steady}

    @asynccontextmanager
    async def doing(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        *,
        every_s: float = 0.0,
        lasting: bool = False,
    ) -> AsyncIterator[None]:
        """Repeat the work inside the context: at once, and then every `every_s`.

        `lasting` work goes on by itself until something fails, so it works as long as it runs.
        Other work that runs for long may just as well hang: only its end shows that it works.
        """
        duty = _Duty(name, work, every_s, lasting=lasting)
        self._kept.add(duty)
        task = asyncio.create_task(duty.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            self._kept.discard(duty)


class _Duty:
    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        every_s: float,
        *,
        lasting: bool,
    ) -> None:
        self.name = name
        self.fault: str | None = None
        self._work = work
        self._every_s = every_s
        self._lasting = lasting
        self._began: float | None = None

    @property
    def steady(self) -> bool:
        """Whether this is lasting work that has gone on for a while since it failed."""
        if not self._lasting or self._began is None:
            return False
        return time.monotonic() > self._began + STEADY_S

    async def run(self) -> None:
        """Repeat the work for ever."""
        failures = 0
        while True:
            self._began = time.monotonic()
            fault = await self._fault()
            if cancelled():
                # The cleanup failed, and its exception replaced the cancellation.
                raise asyncio.CancelledError
            failures = 0 if fault is None or self.steady else failures
            self._began = None
            self.fault = fault
            pause = self._every_s
            if fault is not None:
                longest = max(self._every_s, LONGEST_PAUSE_S)
                pause = min(FIRST_PAUSE_S * 2 ** min(failures, 20), longest)
                failures += 1
            await asyncio.sleep(pause)

    async def _fault(self) -> str | None:
        """Do the work once; log and return what went wrong."""
        try:
            await self._work()
        except RunnerError as error:
            _log.warning("duty_failed", duty=self.name, error=error.detail)
            return error.detail
        except asyncio.CancelledError as error:
            if cancelled():
                raise
            # We were not cancelled. Something that the work waited for was: a fault like any other.
            fault: BaseException = error
        except Exception as error:  # noqa: BLE001 - whatever it is, the duty goes on
            fault = error
        else:
            return None
        _log.error("duty_failed", duty=self.name, exc_info=fault)
        return type(fault).__name__


async def for_each(things: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Do the work for each thing, even if it fails for an earlier one.

    At the end, raises the first failure. Raises NotReady at once, as it would hit the others, too.
    """
    first: Exception | None = None
    for each in things:
        try:
            await work(each)
        except NotReady:
            raise
        except Exception as error:  # noqa: BLE001 - logged; the first is raised below
            if first is None:
                first = error
            else:
                _log.error("also_failed", exc_info=error)
    if first is not None:
        raise first
