"""The breaker of a node that cannot start sandboxes: meanwhile it claims nothing, and says so.

A node whose Docker is broken fails each execution in a moment, and so would take more of the queue
than a whole one beside it. When a start fails, a start of nobody's tells whether the node is at
fault or the order: a tenant's order that cannot be met must not stop the node for the others.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from runner.words.errors import ImageMissing, NotReady, RunnerError

STARTING = "starting sandboxes"

_log = structlog.get_logger("runner.worker")


class Breaker:
    """One node's. `probe` starts and ends a sandbox of nobody's, or raises."""

    def __init__(self, probe: Callable[[], Awaitable[None]]) -> None:
        self._probe = probe
        self._fault: str | None = None
        self._whole = asyncio.Event()
        self._whole.set()
        self._broken = asyncio.Event()
        self._stopped = False
        self._looking = asyncio.Lock()
        self._looked_at = 0.0

    @property
    def failing(self) -> Mapping[str, str]:
        """The reason why the node cannot start sandboxes, while it cannot; also during a look."""
        return {} if self._fault is None else {STARTING: self._fault}

    async def whole(self) -> None:
        """Wait while the node cannot start sandboxes; not once `stop` was called."""
        await self._whole.wait()

    def stop(self) -> None:
        """Hold nobody up any more."""
        self._stopped = True
        self._whole.set()

    async def blames_node(self) -> bool:
        """Return whether a start that has just failed is the node's fault."""
        failed_at = time.monotonic()
        async with self._looking:
            # One look that began since then answers all who wait for it.
            if self._fault is None and self._looked_at < failed_at:
                await self._look()
            return self._fault is not None

    async def mend(self) -> None:
        """Once it is broken, look again; raises NotReady, which tells of it, while it still is."""
        await self._broken.wait()
        async with self._looking:
            await self._look()
        if self._fault is not None:
            raise NotReady(self._fault)

    async def _look(self) -> None:
        began_at = time.monotonic()
        found = await self._found()
        # Only now: a look that was cancelled has answered nobody.
        self._looked_at = began_at
        before, self._fault = self._fault, found
        if self._fault is None:
            self._broken.clear()
            self._whole.set()
            if before is not None:
                _log.info("node_starts_sandboxes_again")
            return
        self._broken.set()
        if not self._stopped:
            self._whole.clear()
        if before is None:
            _log.error("node_cannot_start_sandboxes", why=self._fault)

    async def _found(self) -> str | None:
        try:
            await self._probe()
        except ImageMissing:
            # Docker answers; executions that want another image may well start.
            return None
        except RunnerError as error:
            return error.detail
        except OSError as error:
            return f"{type(error).__name__}: {error.strerror}"
        return None
