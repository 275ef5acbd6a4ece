"""Answers of the API about the resources that a sandbox uses."""

from dataclasses import asdict
from datetime import datetime
from typing import Self

from pydantic import Field

from runner.api.views import View
from runner.words.living import MetricsPoint, SandboxMetrics


class MetricsView(View):
    """The resources that a sandbox uses. Null where the host does not report it."""

    cpu_s: float | None = Field(description="Processor time since it was made.")
    memory_bytes: int | None
    memory_peak_bytes: int | None
    pids: int | None = Field(description="Processes and threads.")
    processes: int = Field(description="Processes that were started through the API, and run.")
    disk_bytes: int | None = Field(description="In `/workspace` and `/tmp`.")
    egress_bytes_up: int = Field(
        description="Through the egress proxy; counted anew when the worker is started again."
    )
    egress_bytes_down: int
    port_bytes_in: int = Field(
        description="Through ports, to servers inside; counted anew when the worker is started "
        "again."
    )
    port_bytes_out: int

    @classmethod
    def of(cls, used: SandboxMetrics) -> Self:
        """Return the view of what a sandbox uses."""
        return cls(**asdict(used))


class MetricsPointView(MetricsView):
    """The resources that a sandbox used at a moment."""

    at: datetime

    @classmethod
    def at_moment(cls, point: MetricsPoint) -> Self:
        """Return the view of a sample."""
        return cls(at=point.at, **asdict(point.used))


class MetricsSeriesView(View):
    """The resources that a sandbox has used for the last hour, oldest first."""

    every_s: int = Field(
        description="Seconds between two samples; where they are further apart, as while the "
        "worker was away, nobody looked."
    )
    items: list[MetricsPointView]
