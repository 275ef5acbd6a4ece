"""Gauges of the whole deployment, read from PostgreSQL when Prometheus asks.

Each is a sum over all tenants: none has a label of a tenant, an execution or a sandbox.
"""

import asyncio
import time

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from runner.store.db import Database
from runner.words.lives import LIVING, Life
from runner.words.states import ACTIVE, WAITING, State

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
        found = await read_gauges(self._database)
        self._good_until = time.monotonic() + KEPT_S
        return generate_latest(found)


async def read_gauges(database: Database) -> CollectorRegistry:
    """Return the gauges. Raises StoreUnavailable."""
    async with database.no_tenant() as tx:
        executions = await tx.all("scheduling.state_counts")
        lives = await tx.all("sandboxes.counts")
        lags = await tx.one("scheduling.lags")
        unsealed = await tx.one("audit.unsealed")
        undelivered = await tx.all("audit.forwarding_lag")
    found = CollectorRegistry()
    counts = {row["state"]: row["executions"] for row in executions}
    by_state = Gauge(
        "runner_executions", "Executions that have not ended.", ("state",), registry=found
    )
    for state in (each for each in State if each in WAITING | ACTIVE):
        by_state.labels(state).set(counts.get(state, 0))
    living = {row["state"]: row["sandboxes"] for row in lives}
    alive = Gauge("runner_sandboxes", "Sandboxes that live.", ("state",), registry=found)
    for life in (each for each in Life if each in LIVING):
        alive.labels(life).set(living.get(life, 0))
    for name, meaning, column in (
        ("runner_queue_oldest_seconds", "How long the first execution in the queue has waited.",
         "queue_oldest_s"),
        ("runner_queue_tenants", "Tenants whose executions wait.", "queue_tenants"),
        ("runner_executions_overdue", "Executions whose worker has not renewed its lease in time.",
         "executions_overdue"),
        ("runner_sandboxes_overdue", "Sandboxes whose node has not renewed its lease in time.",
         "sandboxes_overdue"),
    ):  # fmt: skip
        Gauge(name, meaning, registry=found).set(lags[column] if lags else 0)
    Gauge(
        "runner_audit_unsealed_seconds",
        "Age of the oldest audit record that no checkpoint covers: much above "
        "RUNNER_AUDIT_CHECKPOINT_S, a worker is away or refuses to seal a log that does not hold.",
        registry=found,
    ).set(unsealed["seconds"] if unsealed else 0)
    ages = {row["sink"]: row["seconds"] for row in undelivered}
    lag = Gauge(
        "runner_audit_undelivered_seconds",
        "Age of the oldest audit record that is yet to be forwarded.",
        ("sink",),
        registry=found,
    )
    for sink in SINKS:
        lag.labels(sink).set(ages.get(sink, 0))
    return found
