"""The bytes that connections to a sandbox's ports carry, for its metrics and for the audit log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """The bytes of one connection, told of when some have come and a while has passed."""

    def __init__(
        self,
        all_ports: PortBytes,
        tell: Callable[[PortBytes], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count in `all_ports` as well, which are those of the sandbox."""
        self._all = all_ports
        self._tell = tell
        self._clock = clock
        self._untold = PortBytes()
        self._told_at = clock()

    def add(self, *, into: int = 0, out: int = 0) -> None:
        """Count further bytes."""
        self._all.add(into=into, out=out)
        self._untold.add(into=into, out=out)
        if self._clock() - self._told_at >= TOLD_EVERY_S:
            self.tell()

    def tell(self) -> None:
        """Tell of the bytes that were counted since the last time."""
        untold, self._untold = self._untold, PortBytes()
        self._told_at = self._clock()
        self._tell(untold)


@contextmanager
def counting(all_ports: PortBytes, tell: Callable[[PortBytes], None]) -> Iterator[CarriedBytes]:
    """Count a connection's bytes inside the context; tell of them meanwhile, and at the end."""
    carried = CarriedBytes(all_ports, tell)
    try:
        yield carried
    finally:
        carried.tell()
