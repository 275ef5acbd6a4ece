"""The bytes that connections to a sandbox's ports carry, for its metrics and for the audit log."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

TOLD_EVERY_S: Final = 60.0
"""How often a connection that lasts is told of: some are open for days."""


@dataclass(slots=True)
class PortBytes:
    """The bytes that connections to ports have carried into a sandbox and out of it so far."""

    bytes_in: int = 0
    bytes_out: int = 0

    def add(self, *, into: int = 0, out: int = 0) -> None:
        """Count further bytes."""
        self.bytes_in += into
        self.bytes_out += out


class CarriedBytes:
    """The bytes of one connection."""

    def __init__(self, all_ports: PortBytes) -> None:
        """Count in `all_ports` as well, which are those of the sandbox."""
        self._all = all_ports
        self._untold = PortBytes()

    def add(self, *, into: int = 0, out: int = 0) -> None:
        """Count further bytes."""
        self._all.add(into=into, out=out)
        self._untold.add(into=into, out=out)

    def take(self) -> PortBytes:
        """Return the bytes that were counted since the last call."""
        taken, self._untold = self._untold, PortBytes()
        return taken


@asynccontextmanager
async def counting(
    all_ports: PortBytes, tell: Callable[[PortBytes], None], *, every_s: float = TOLD_EVERY_S
) -> AsyncIterator[CarriedBytes]:
    """Count the bytes of a connection inside the context; tell of them meanwhile, and at the end.

    While nothing is carried, nothing is told.
    """
    carried = CarriedBytes(all_ports)

    async def telling() -> None:
        while True:
            await asyncio.sleep(every_s)
            if (more := carried.take()) != PortBytes():
                tell(more)

    task = asyncio.create_task(telling())
    try:
        yield carried
    finally:
        task.cancel()
        tell(carried.take())
