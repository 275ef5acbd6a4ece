"""Limits of a sandbox, and of one run in it.

Sizes carry their unit in the name (`_mb` = 2**20 bytes, `_kb` = 2**10 bytes, `_s` = seconds).
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

OutputKeep: TypeAlias = Literal["head", "head_and_tail"]
"""The part of an output that is kept if the output is longer than its limit."""
MOST_TAIL = 2**20
"""Limit of the tail, because the worker holds it in memory until the run ends."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources that a sandbox may use at any time while it lives."""

    cpu: float
    memory_mb: int
    pids: int
    disk_mb: int


@dataclass(frozen=True, slots=True)
class RunBounds:
    """The time that one run may take, and how much of its stdout and of its stderr is kept."""

    timeout_s: float
    output_kb: int
    output_keep: OutputKeep = "head"

    @property
    def output_bytes(self) -> int:
        """How many bytes of each stream are kept."""
        return self.output_kb * 1024

    @property
    def tail_bytes(self) -> int:
        """How many of these bytes are the stream's end: none, or half up to a limit."""
        return min(self.output_bytes // 2, MOST_TAIL) if self.output_keep == "head_and_tail" else 0

    @property
    def head_bytes(self) -> int:
        """How many of these bytes are the stream's beginning."""
        return self.output_bytes - self.tail_bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one sandbox. `output_kb` bounds stdout and stderr each."""

    # A size: resources and bounds together, flat, as profiles, requests, rows, answers and receipts
    # hold them. The API's schema shows this docstring.

    cpu: float
    memory_mb: int
    pids: int
    disk_mb: int
    timeout_s: float
    output_kb: int

    @property
    def resources(self) -> Resources:
        """The limits of the sandbox."""
        return Resources(self.cpu, self.memory_mb, self.pids, self.disk_mb)

    @property
    def bounds(self) -> RunBounds:
        """The limits of the run."""
        return RunBounds(self.timeout_s, self.output_kb)
