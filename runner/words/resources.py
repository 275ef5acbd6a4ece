"""What a sandbox may use.

Sizes carry their unit in the name (`_mb` = 2**20 bytes, `_kb` = 2**10 bytes, `_s` = seconds).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use. `output_kb` bounds stdout and stderr each."""

    cpu: float
    memory_mb: int
    pids: int
    disk_mb: int
    timeout_s: float
    output_kb: int
