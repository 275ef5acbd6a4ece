"""The cost of a claim with a long queue, and that of ledger and quota check in a submission.

It uses only the embedded PostgreSQL, and no sandbox. It calls the scheduling function as the
worker's login does, with various numbers of waiting executions and tenants, and after one tenant
has cancelled 10,000. Submissions with and without the quota check and the counting triggers take
turns in one run, so that their ratio holds on a noisy machine. Prints tables; with `--json`, one
line of JSON.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import psycopg
from psycopg import Connection
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from benchmarks.harness import DISK
from runner.audit import events as audit
from runner.base.settings import Settings
from runner.embedded.services import Services, services
from runner.quotas.sizes import load_sizes
from runner.quotas.standing import refusal
from runner.quotas.tiers import load_tiers
from runner.store import executions, quotas, tenants
from runner.store.db import Database
from runner.store.migrations import migrate
from runner.tenants.tenancy import create_key, publish_tiers
from runner.words.execution import ExecutionRequest, Program, RunSpec
from runner.words.ids import new_id
from runner.words.principal import Role, Tier
from runner.words.sandbox import SandboxSpec

GRID = [
    (of_tenants, waiting)
    for of_tenants in (1, 100, 1_000)
    for waiting in (10, 1_000, 10_000, 100_000)
    if waiting >= of_tenants
]
CLAIMS = 200
SUBMISSIONS = 300
STORM = 10_000
SIZES = load_sizes(Settings().profiles_path)
REQUEST = ExecutionRequest(
    SandboxSpec("python", SIZES["nano"].resources),
    RunSpec(Program(argv=("true",), env={}), SIZES["nano"].bounds),
    size="nano",
)
Row = tuple[object, ...]

FILL_TENANTS = """
INSERT INTO tenants (tenant_id, name, tier, max_limits)
SELECT gen_random_uuid(), 't' || n, 'enterprise', '{}' FROM generate_series(1, %s) n
"""
# Fill without triggers, and compute their sums at once: filling is not what is measured.
FILL_EXECUTIONS = """
INSERT INTO executions (tenant_id, execution_id, image, size, limits, isolation, egress, metadata,
                        on_worker_loss, argv, env, stdin, event_seq, queued_at)
SELECT t.tenant_id, gen_random_uuid(), 'python', 'nano', '{}', 'container', '[]', '{}', 'fail',
       '{true}', '{}', '', 1, now() + n * interval '1 ms'
FROM generate_series(1, %s) n
JOIN (SELECT tenant_id, row_number() OVER () AS number, count(*) OVER () AS all_of_them
      FROM tenants) t ON t.number = n %% t.all_of_them + 1
"""
FILL_QUEUES = """
INSERT INTO queues (tenant_id, waiting, served)
SELECT tenant_id, count(*), random() FROM executions WHERE state = 'queued' GROUP BY tenant_id
"""
CLAIM = "SELECT tenant_id, execution_id, attempt FROM claim_execution('n', 'i', '1 hour')"
LAST = """
SELECT tenant_id, execution_id FROM executions WHERE state = 'queued'
ORDER BY queued_at DESC LIMIT 1
"""
END = """
UPDATE executions SET state = 'system_error', ended_at = now(), lease_until = NULL, result = '{}'
WHERE tenant_id = %s AND execution_id = %s
"""


@contextmanager
def postgres() -> Iterator[Services]:
    """Run a migrated PostgreSQL."""
    with TemporaryDirectory(prefix="runner-bench-", dir=DISK) as folder:
        Path(folder).chmod(0o711)
        with services(Path(folder), ephemeral=True) as running:
            migrate(SecretStr(running.owner_url))
            asyncio.run(_publish(running))
            yield running


async def _publish(running: Services) -> None:
    async with Database(SecretStr(running.owner_url), max_size=1) as owner:
        await publish_tiers(owner, load_tiers(Settings().profiles_path, SIZES))


def fill(admin: Connection[Row], of_tenants: int, waiting: int) -> None:
    """Begin again, with this many tenants and this many of their executions waiting."""
    admin.execute("SET session_replication_role = replica")
    admin.execute("TRUNCATE tenants, executions, queues, events CASCADE")
    admin.execute(FILL_TENANTS, [of_tenants])
    admin.execute(FILL_EXECUTIONS, [waiting])
    admin.execute(FILL_QUEUES)
    admin.execute("SET session_replication_role = origin")
    admin.execute("VACUUM ANALYZE")


def claim_times(running: Services, admin: Connection[Row], claims: int) -> list[float]:
    """Claim and end this many, one after another; return the milliseconds of all but the first."""
    took = []
    with psycopg.connect(running.worker_url, autocommit=True) as worker:
        for _ in range(claims):
            started = time.perf_counter()
            found = worker.execute(CLAIM).fetchone()
            took.append(1000 * (time.perf_counter() - started))
            if found is None:
                raise RuntimeError("nothing was claimed")
            admin.execute(END, found[:2])
    # A connection's first call reads and plans the function.
    return took[1:]


def position_times(running: Services, admin: Connection[Row]) -> list[float]:
    """Return the milliseconds in which somebody at the end of the queue learns their place."""
    last = admin.execute(LAST).fetchone()
    if last is None:
        raise RuntimeError("nothing waits")
    took = []
    with psycopg.connect(running.api_url, autocommit=True) as api:
        api.execute("SELECT set_config('app.tenant_id', %s, false)", [str(last[0])])
        for _ in range(50):
            started = time.perf_counter()
            api.execute("SELECT queue_position(%s)", [last[1]])
            took.append(1000 * (time.perf_counter() - started))
    return took


def storm(running: Services, admin: Connection[Row]) -> dict[str, list[float]]:
    """Measure claims of a quiet tenant, and of one that has just cancelled 10,000 executions."""
    fill(admin, 2, 0)
    stormy, quiet = (UUID(str(row[0])) for row in admin.execute("SELECT tenant_id FROM tenants"))

    async def cancel_all() -> None:
        async with Database(SecretStr(running.api_url), max_size=4) as api:
            ids = [new_id() for _ in range(STORM)]
            for id_ in ids:
                async with api.tenant(stormy) as tx:
                    executions.insert_later(tx, id_, REQUEST)
            for id_ in ids:
                async with api.tenant(stormy) as tx:
                    await executions.cancel(tx, id_)
            for tenant in (stormy, quiet):
                for _ in range(60):
                    async with api.tenant(tenant) as tx:
                        executions.insert_later(tx, new_id(), REQUEST)

    asyncio.run(cancel_all())
    took: dict[str, list[float]] = {"quiet": [], "stormy": []}
    with psycopg.connect(running.worker_url, autocommit=True) as worker:
        for _ in range(100):
            started = time.perf_counter()
            found = worker.execute(CLAIM).fetchone()
            ms = 1000 * (time.perf_counter() - started)
            if found is None:
                raise RuntimeError("nothing was claimed")
            took["stormy" if found[0] == stormy else "quiet"].append(ms)
            admin.execute(END, found[:2])
    return took


async def submissions(running: Services, admin: Connection[Row]) -> tuple[list[float], list[float]]:
    """Return the milliseconds of stored submissions with quotas and counting, and without."""
    async with Database(SecretStr(running.owner_url), max_size=1) as owner:
        made = await create_key(
            owner, tenant="costs", role=Role.OWNER, name="bench", max_limits=SIZES["large"],
            tier=Tier.ENTERPRISE,
        )  # fmt: skip
    with_ms: list[float] = []
    without_ms: list[float] = []
    async with Database(SecretStr(running.api_url), max_size=1) as api:
        for round_ in range(2 * SUBMISSIONS // 20):
            checked = round_ % 2 == 0
            switch = "ENABLE" if checked else "DISABLE"
            admin.execute(f"ALTER TABLE executions {switch} TRIGGER queue_enters".encode())
            for _ in range(20):
                started = time.perf_counter()
                await _submit(api, made.tenant_id, checked=checked)
                took = 1000 * (time.perf_counter() - started)
                (with_ms if checked else without_ms).append(took)
    admin.execute("ALTER TABLE executions ENABLE TRIGGER queue_enters")
    return with_ms, without_ms


async def _submit(api: Database, tenant: UUID, *, checked: bool) -> None:
    async with api.tenant(tenant) as tx:
        await tenants.get(tx)
        if checked:
            _, standing = await quotas.alone(tx)
            refused = refusal(standing, egress=False)
            if refused is not None:
                raise refused
        id_ = new_id()
        executions.insert_later(tx, id_, REQUEST)
        event = audit.AuditEvent("key:bench", audit.Action.EXECUTION_SUBMIT, audit.Outcome.SUCCESS)
        audit.append(tx, tenant, event)


def p95(values: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(values, n=20)[18]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON, too")
    asked = parser.parse_args()
    console = Console()
    figures: dict[str, object] = {}
    table = Table("ms", "tenants", "waiting", "median", "p95")

    def show(name: str, of_tenants: int, waiting: int, took: list[float]) -> None:
        median, high = round(statistics.median(took), 2), round(p95(took), 2)
        table.add_row(name, str(of_tenants), str(waiting), str(median), str(high))
        figures[f"{name} {of_tenants}x{waiting}"] = {"median_ms": median, "p95_ms": high}

    with (
        postgres() as running,
        psycopg.connect(running.postgres.url("postgres", "runner"), autocommit=True) as admin,
    ):
        for of_tenants, waiting in GRID:
            fill(admin, of_tenants, waiting)
            show("queue position", of_tenants, waiting, position_times(running, admin))
            took = claim_times(running, admin, min(CLAIMS, waiting))
            show("claim", of_tenants, waiting, took)
        for who, took in storm(running, admin).items():
            show(f"claim after 10,000 cancelled: {who}", 2, 120, took)
        console.print(table)
        with_ms, without_ms = asyncio.run(submissions(running, admin))
    ratio = statistics.median(with_ms) / statistics.median(without_ms)
    console.print(
        f"storing a submission: {statistics.median(with_ms):.2f} ms with quotas and counting, "
        f"{statistics.median(without_ms):.2f} ms without; ratio {ratio:.2f}"
    )
    figures["submission"] = {
        "with_ms": round(statistics.median(with_ms), 3),
        "without_ms": round(statistics.median(without_ms), 3),
        "ratio": round(ratio, 3),
        "samples": len(with_ms) + len(without_ms),
    }
    if asked.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
