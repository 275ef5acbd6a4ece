"""What is delivered to a sink, and the one way in which that fails."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from runner.audit.chain import Link

MAX_RECORDS = 100
"""In one delivery."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one tenant, one after another in the chain."""

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
    """The sink did not take the batch. `problem` is for the tenant; `detail` for our log alone."""

    def __init__(self, problem: str, detail: str | None = None) -> None:
        super().__init__(detail or problem)
        self.problem = problem
        self.detail = detail or problem


Deliver = Callable[[Batch], Awaitable[None]]
"""Returns once the sink has the batch. Raises Undelivered."""
