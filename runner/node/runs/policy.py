"""What the deployment fixes for every execution."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class ExecutionPolicy:
    """Who runs executions here, and what holds for all of them."""

    node: str
    instance: str
    lease: timedelta
    max_attempts: int
    flood_bytes: int
    max_artifacts: int
