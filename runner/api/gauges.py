"""Gauges of the whole deployment, read from PostgreSQL when Prometheus asks.

Each is a sum over all tenants: none has a label of a tenant, an execution or a sandbox.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from runner.store.db import Database
from runner.words.lives import LIVING, Life
from runner.words.states import ACTIVE, WAITING, State

LAGS = ("queue_oldest_s", "queue_tenants", "executions_overdue", "sandboxes_overdue")
SINKS = ("tenant", "webhook", "syslog")
KEPT_S = 1.0
"""How old the gauges may be. Nobody needs a key to ask for them, and each reading takes five
statements over all tenants: however many ask, PostgreSQL answers once a second."""


class DeploymentGauges:
    """The gauges as text; one reading serves all who ask meanwhile, and for `KEPT_S` after it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reading: asyncio.Task[bytes] | None = None
        self._good_until = 0.0

    async def text(self) -> bytes:
        """Return them in Prometheus' text format. Raises StoreUnavailable."""
        reading = self._reading
        if reading is None or (reading.done() and time.monotonic() >= self._good_until):
            reading = self._reading = asyncio.create_task(self._read())
        # Whoever hangs up takes it from nobody else.
        return await asyncio.shield(reading)

    async def _read(self) -> bytes:
        found = await read_figures(self._database)
        self._good_until = time.monotonic() + KEPT_S
        return generate_latest(as_gauges(found))


@dataclass(frozen=True, slots=True)
class Figures:
    """The deployment in numbers, at one moment. Ages are in seconds, and 0 where nothing waits."""

    executions: Mapping[State, int]
    """Those that have not ended."""
    sandboxes: Mapping[Life, int]
    """Those that live."""
    queue_oldest_s: float
    queue_tenants: int
    executions_overdue: int
    sandboxes_overdue: int
    audit_unsealed_s: float
    audit_undelivered_s: Mapping[str, float]
    """By sink."""


async def read_figures(database: Database) -> Figures:
    """Return the deployment's figures. Raises StoreUnavailable."""
    async with database.no_tenant() as tx:
        executions = await tx.all("scheduling.state_counts")
        lives = await tx.all("sandboxes.counts")
        lags = await tx.one("scheduling.lags")
        unsealed = await tx.one("audit.unsealed")
        undelivered = await tx.all("audit.forwarding_lag")
    counts = {row["state"]: row["executions"] for row in executions}
    living = {row["state"]: row["sandboxes"] for row in lives}
    ages = {row["sink"]: float(row["seconds"]) for row in undelivered}
    late = lags or dict.fromkeys(LAGS, 0)
    return Figures(
        executions={each: counts.get(each, 0) for each in State if each in WAITING | ACTIVE},
        sandboxes={each: living.get(each, 0) for each in Life if each in LIVING},
        queue_oldest_s=float(late["queue_oldest_s"]),
        queue_tenants=late["queue_tenants"],
        executions_overdue=late["executions_overdue"],
        sandboxes_overdue=late["sandboxes_overdue"],
        audit_unsealed_s=float(unsealed["seconds"]) if unsealed else 0.0,
        audit_undelivered_s={sink: ages.get(sink, 0.0) for sink in SINKS},
    )


def as_gauges(found: Figures) -> CollectorRegistry:
    """Return the figures as Prometheus' gauges."""
    made = CollectorRegistry()
    by_state = Gauge(
        "runner_executions", "Executions that have not ended.", ("state",), registry=made
    )
    for state, executions in found.executions.items():
        by_state.labels(state).set(executions)
    alive = Gauge("runner_sandboxes", "Sandboxes that live.", ("state",), registry=made)
    for life, sandboxes in found.sandboxes.items():
        alive.labels(life).set(sandboxes)
    for name, meaning, value in (
        ("runner_queue_oldest_seconds", "How long the first execution in the queue has waited.",
         found.queue_oldest_s),
        ("runner_queue_tenants", "Tenants whose executions wait.", found.queue_tenants),
        ("runner_executions_overdue", "Executions whose worker has not renewed its lease in time.",
         found.executions_overdue),
        ("runner_sandboxes_overdue", "Sandboxes whose node has not renewed its lease in time.",
         found.sandboxes_overdue),
    ):  # fmt: skip
        Gauge(name, meaning, registry=made).set(value)
    Gauge(
        "runner_audit_unsealed_seconds",
        "Age of the oldest audit record that no checkpoint covers: much above "
        "RUNNER_AUDIT_CHECKPOINT_S, a worker is away or refuses to seal a log that does not hold.",
        registry=made,
    ).set(found.audit_unsealed_s)
    lag = Gauge(
        "runner_audit_undelivered_seconds",
        "Age of the oldest audit record that is yet to be forwarded.",
        ("sink",),
        registry=made,
    )
    for sink, seconds in found.audit_undelivered_s.items():
        lag.labels(sink).set(seconds)
    return made
