"""What a process does for as long as it lives: done again when it fails, and never silently gone.

A task that nobody awaits takes its exception with it. So whatever is to go on for ever is a duty:
a failure is logged, the duty begins anew, later and later, and `Duties` tells which of them fail.
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
"""Where it is not done less often anyway: what is back is found within two seconds."""
STEADY_S = 10.0
"""Lasting work that has gone on for so long since it failed does not fail any more."""

T = TypeVar("T")
_log = structlog.get_logger("runner.duties")


class Duties:
    """The duties of one process."""

    def __init__(self) -> None:
        self._kept: set[_Duty] = set()

    @property
    def failing(self) -> Mapping[str, str]:
        """What went wrong, by the names of the duties that do not do their work now."""
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
        """Do the work over and over while the context lasts, at once and then every `every_s`.

        `lasting` says that it goes on by itself until something fails, and so works while it does.
        Any other work that goes on for long may as well hang: only its end shows that it works.
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
        """Whether it is lasting work that has gone on for a while since it failed."""
        if not self._lasting or self._began is None:
            return False
        return time.monotonic() > self._began + STEADY_S

    async def run(self) -> None:
        """Do it for ever."""
        failures = 0
        while True:
            self._began = time.monotonic()
            fault = await self._fault()
            if cancelled():
                # Its clean-up has failed in place of the cancellation.
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
        """Do it once; return what went wrong, which is logged."""
        try:
            await self._work()
        except RunnerError as error:
            _log.warning("duty_failed", duty=self.name, error=error.detail)
            return error.detail
        except asyncio.CancelledError as error:
            if cancelled():
                raise
            # Not ours: something that it waited for was cancelled, which is a fault like any other.
            fault: BaseException = error
        except Exception as error:  # noqa: BLE001 - whatever it is, the duty goes on
            fault = error
        else:
            return None
        _log.error("duty_failed", duty=self.name, exc_info=fault)
        return type(fault).__name__


async def for_each(things: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Do the work for each thing, also for those behind one that fails.

    Raises what failed first, at the end; NotReady at once, as the others would meet it, too.
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
