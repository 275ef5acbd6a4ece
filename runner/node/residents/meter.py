"""Reads the counters of one living sandbox, and keeps them for an hour."""

import math
import struct
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from runner.node.residents.carried import PortBytes
from runner.node.runs.egress import WayOut
from runner.sandbox.guest.container import Container
from runner.store.usage import SandboxReading
from runner.words.living import MetricsPoint, SandboxMetrics

SAMPLE_S: Final = 10
"""How often a sandbox is sampled."""
KEPT_S: Final = 3600
"""For how long samples are kept."""
_PACKED = struct.Struct("<11d")
"""A sample in 88 bytes: a node keeps hundreds of them for each of a thousand sandboxes."""


class SandboxMeter:
    """Reads a container's counters, the bytes of its way out, and those of its ports."""

    def __init__(self, container: Container, way: WayOut) -> None:
        self.ports = PortBytes()
        self._container = container
        self._way = way
        self._last: float | None = None

    def note(self) -> None:
        """Note the CPU time as the end begins: the counter soon vanishes with the container."""
        self._last = self._container.counters().cpu_s or self._last

    async def read(self) -> SandboxReading:
        """Return the reading for the ledger; once the container has gone, what was noted."""
        up, down = await self._way.carried()
        cpu_s = self._container.counters().cpu_s
        last = self._last if cpu_s is None else cpu_s
        return SandboxReading(last, up, down, self.ports.bytes_in, self.ports.bytes_out)

    async def metrics(self, running: int) -> SandboxMetrics:
        """Return what the sandbox uses now, in which so many processes run."""
        up, down = await self._way.carried()
        counters, now = self._container.counters(), self._container.in_use()
        return SandboxMetrics(
            cpu_s=counters.cpu_s,
            memory_bytes=now.memory_bytes,
            memory_peak_bytes=counters.memory_peak_bytes,
            pids=now.pids,
            processes=running,
            disk_bytes=self._container.disk_bytes(),
            egress_bytes_up=up,
            egress_bytes_down=down,
            port_bytes_in=self.ports.bytes_in,
            port_bytes_out=self.ports.bytes_out,
        )


class MetricsSeries:
    """The samples of the last hour, oldest first. They are gone with this process of the node."""

    def __init__(self, most: int = KEPT_S // SAMPLE_S) -> None:
        self._samples: deque[bytes] = deque(maxlen=most)

    def add(self, at: datetime, used: SandboxMetrics) -> None:
        """Keep a sample; the oldest goes if there are too many."""
        self._samples.append(
            _PACKED.pack(
                at.timestamp(),
                *map(
                    _number,
                    (
                        used.cpu_s, used.memory_bytes, used.memory_peak_bytes, used.pids,
                        used.processes, used.disk_bytes, used.egress_bytes_up,
                        used.egress_bytes_down, used.port_bytes_in, used.port_bytes_out,
                    ),
                ),
            )
        )  # fmt: skip

    def __iter__(self) -> Iterator[MetricsPoint]:
        for sample in self._samples:
            at, cpu_s, *numbers = _PACKED.unpack(sample)
            memory, peak, pids, processes, disk, up, down, into, out = map(_whole, numbers)
            used = SandboxMetrics(
                cpu_s=None if math.isnan(cpu_s) else cpu_s,
                memory_bytes=memory,
                memory_peak_bytes=peak,
                pids=pids,
                processes=processes or 0,
                disk_bytes=disk,
                egress_bytes_up=up or 0,
                egress_bytes_down=down or 0,
                port_bytes_in=into or 0,
                port_bytes_out=out or 0,
            )
            yield MetricsPoint(datetime.fromtimestamp(at, UTC), used)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _whole(number: float) -> int | None:
    return None if math.isnan(number) else int(number)
