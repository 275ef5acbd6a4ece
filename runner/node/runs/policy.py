"""The deployment's rules for every execution."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class ExecutionPolicy:
    """The worker that runs executions here, and the settings that hold for all of them."""

    node: str
    instance: str
    lease: timedelta
    max_attempts: int
    flood_bytes: int
    max_artifacts: int
