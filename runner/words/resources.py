"""What a sandbox may use, and what one run in it may take.

Sizes carry their unit in the name (`_mb` = 2**20 bytes, `_kb` = 2**10 bytes, `_s` = seconds).
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

OutputKeep: TypeAlias = Literal["head", "head_and_tail"]
"""Which part is kept of output that is longer than its bound."""
MOST_TAIL = 2**20
"""The end of each output is held in the worker's memory until the run ends."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a sandbox may use at a time, for as long as it lives."""

    cpu: float
    memory_mb: int
    pids: int
    disk_mb: int


@dataclass(frozen=True, slots=True)
class RunBounds:
    """How long one run may take, and how much is kept of its stdout and stderr each."""

    timeout_s: float
    output_kb: int
    output_keep: OutputKeep = "head"

    @property
    def output_bytes(self) -> int:
        """How much is kept of each stream."""
        return self.output_kb * 1024

    @property
    def tail_bytes(self) -> int:
        """How much of that is the stream's end: none, or half, up to a bound."""
        return min(self.output_bytes // 2, MOST_TAIL) if self.output_keep == "head_and_tail" else 0

    @property
    def head_bytes(self) -> int:
        """How much of it is the stream's beginning."""
        return self.output_bytes - self.tail_bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use. `output_kb` bounds stdout and stderr each."""

    # A size: resources and bounds together, flat as profiles, requests, rows, answers and receipts
    # hold them. The API's schema shows the docstring.

    cpu: float
    memory_mb: int
    pids: int
    disk_mb: int
    timeout_s: float
    output_kb: int

    @property
    def resources(self) -> Resources:
        """The part that the sandbox is held to."""
        return Resources(self.cpu, self.memory_mb, self.pids, self.disk_mb)

    @property
    def bounds(self) -> RunBounds:
        """The part that the run is held to."""
        return RunBounds(self.timeout_s, self.output_kb)
