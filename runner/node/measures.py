"""The counts of this node, for Prometheus.

Every label comes from a fixed set, or from a set that stops growing: however many tenants and
sandboxes there are, and whatever they do, the number of series stays the same.
"""

import re
from collections.abc import AsyncIterator, Iterator, Sized
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from shutil import disk_usage
from time import perf_counter
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from runner.base.exposition import exposed
from runner.base.health import Health
from runner.base.settings import Settings
from runner.words.errors import NotReady, Refused
from runner.words.explanation import Source
from runner.words.states import Reason, State

BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900,
)  # fmt: skip
MOST_REASONS = 64
"""Most reasons of the egress proxy that are told apart: far more than it has."""
OTHER = "other"
_REASON = re.compile(r"[a-z][a-z_]{0,47}")


class ExecutionStage(StrEnum):
    """A part of an attempt's time on this node, and its time in the queue before."""

    WAIT = "wait"
    START = "start"
    RUN = "run"
    FINISH = "finish"


@dataclass(frozen=True, slots=True)
class NodeGauges:
    """The values that are read anew each time Prometheus asks."""

    claimer: "Busy"
    pool: "Stock"
    residents: Sized
    health: Health


class Busy(Protocol):
    """Runs executions."""

    @property
    def running(self) -> int:
        """How many run now."""


class Stock(Protocol):
    """Keeps sandboxes that were started ahead."""

    @property
    def idle(self) -> int:
        """How many wait."""


class Measures:
    """The metrics of one worker."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._stages = Histogram(
            "runner_execution_stage_seconds",
            "Seconds of each stage of an attempt: wait in the queue, start of the sandbox and the "
            "program, run, and finish until the result is stored.",
            ("stage",),
            registry=registry,
            buckets=BUCKETS,
        )
        self._ended = Counter(
            "runner_executions_ended_total",
            "Executions that this worker ended.",
            ("state", "reason"),
            registry=registry,
        )
        self._sandboxes = Counter(
            "runner_sandboxes_used_total",
            "Sandboxes of executions, by where they came from.",
            ("source",),
            registry=registry,
        )
        self._leases_lost = Counter(
            "runner_leases_lost_total",
            "Executions that were taken from this worker while it held them.",
            registry=registry,
        )
        self._egress = Counter(
            "runner_egress_decisions_total",
            "Decisions of the egress proxy.",
            ("outcome", "reason"),
            registry=registry,
        )
        self._calls = Counter(
            "runner_door_calls_total",
            "Calls at the node's door.",
            ("call", "outcome"),
            registry=registry,
        )
        self._call_seconds = Histogram(
            "runner_door_call_seconds",
            "Seconds until a call at the node's door has ended. Calls that follow something, such "
            "as a process's output, last as long as their client listens.",
            ("call",),
            registry=registry,
            buckets=BUCKETS,
        )
        for stage in ExecutionStage:
            self._stages.labels(stage)
        self._reasons: set[str] = set()

    def spent(self, stage: ExecutionStage, seconds: float) -> None:
        """Count the time of one stage of an attempt."""
        self._stages.labels(stage).observe(max(seconds, 0.0))

    def ended(self, state: State, reason: Reason) -> None:
        """Count the end of an execution."""
        self._ended.labels(state, reason).inc()

    def used(self, source: Source) -> None:
        """Count a sandbox that an execution got."""
        self._sandboxes.labels(source).inc()

    def lost_lease(self) -> None:
        """Count an execution that was taken from this worker."""
        self._leases_lost.inc()

    def decided(self, outcome: str, reason: str) -> None:
        """Count a decision of the egress proxy, whose words are not trusted to be few."""
        if reason not in self._reasons:
            if len(self._reasons) < MOST_REASONS and _REASON.fullmatch(reason):
                self._reasons.add(reason)
            else:
                reason = OTHER
        self._egress.labels("allowed" if outcome == "allowed" else "denied", reason).inc()

    @contextmanager
    def answering(self, call: str) -> Iterator[None]:
        """Count a call at the door, and its time; `call` is the name of an admitted one."""
        began, outcome = perf_counter(), "done"
        try:
            yield
        except Refused:
            outcome = "refused"
            raise
        except NotReady:
            outcome = "not_ready"
            raise
        except Exception:
            outcome = "failed"
            raise
        except BaseException:
            outcome = "cancelled"
            raise
        finally:
            self._calls.labels(call, outcome).inc()
            self._call_seconds.labels(call).observe(perf_counter() - began)

    @asynccontextmanager
    async def exposed(self, settings: Settings, of: NodeGauges) -> AsyncIterator[None]:
        """Answer Prometheus inside the context, if the settings name a port.

        Raises SetupError if the port is taken.
        """
        folder = settings.state_dir
        for name, meaning, read in (
            ("runner_slots", "Executions that this worker runs at once.", lambda: settings.slots),
            ("runner_slots_busy", "Executions that it runs now.", lambda: of.claimer.running),
            ("runner_pool_idle", "Sandboxes started ahead that wait.", lambda: of.pool.idle),
            ("runner_residents", "Sandboxes that live on this node.", lambda: len(of.residents)),
            ("runner_worker_problems", "Parts of it that fail.", lambda: len(of.health.found)),
            ("runner_state_free_bytes", "Free space below the state folder.",
             lambda: disk_usage(folder).free),
        ):  # fmt: skip
            Gauge(name, meaning, registry=self.registry).set_function(read)
        async with exposed(settings.worker_metrics_port, self.text):
            yield

    def text(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return generate_latest(self.registry)
