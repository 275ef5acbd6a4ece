"""How long a sandbox may take over what it was told to do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runner.words.errors import SandboxLate

UPLOAD_S = 60.0
FURNISH_S = 60.0
COLLECT_S = 60.0
LOAD_S = 30.0
CLEAN_S = 10.0
ANSWER_S = 0.5
START_S = 10.0
ARCHIVE_S = 60.0
"""To take or give the next bytes of an archive: any program of the sandbox can stop its tar."""
LIST_S = 20.0
"""To tell of processes: it may be said behind much else, and is read at the sandbox's own pace.

As many processes as are remembered, with the longest commands, take five seconds on an idle host. A
sandbox that takes longer than this after a restart of its node is lost.
"""


class Patience:
    """Waits for a sandbox, each multiplied by what this host needs."""

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def stretched(self, seconds: float) -> float:
        """Return how long that is on this host."""
        return seconds * self._factor

    @asynccontextmanager
    async def __call__(self, seconds: float, what: str) -> AsyncIterator[None]:
        """Bound the block: raises SandboxLate when the sandbox takes longer."""
        bound = asyncio.timeout(self.stretched(seconds))
        try:
            async with bound:
                yield
        except TimeoutError:
            if not bound.expired():
                raise
            raise SandboxLate(
                f"the sandbox did not {what} in time: its host may be overloaded"
            ) from None
