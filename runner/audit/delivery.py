"""A delivery to a sink, and the one way in which it fails."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from runner.audit.chain import Link

MAX_RECORDS = 100
"""Most records in one delivery."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one tenant's chain."""

    tenant: UUID
    links: tuple[Link, ...]

    @property
    def first(self) -> int:
        """The number of the first record."""
        return self.links[0].seq

    @property
    def last(self) -> int:
        """The number of the last record."""
        return self.links[-1].seq


class Undelivered(Exception):
    """The sink did not take the batch. The tenant sees `problem`; only our log has `detail`."""

    def __init__(self, problem: str, detail: str | None = None) -> None:
        super().__init__(detail or problem)
        self.problem = problem
        self.detail = detail or problem


Deliver = Callable[[Batch], Awaitable[None]]
"""Returns once the sink has the batch. Raises Undelivered."""
