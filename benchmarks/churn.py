"""Growth while many processes run one after the other in one sandbox, by the whole stack.

`python -m benchmarks.soak --processes 10000`.
"""

import asyncio
import json
from dataclasses import astuple, dataclass, field

import docker
import psutil
import psycopg
from psycopg import sql

from benchmarks.harness import Deployed, Sheet, deployment
from benchmarks.living import Wire
from benchmarks.memory import pss_mb

STEPS = 5
FIRST = 300
SETTLE_S = 8.0
"""Longer than the supervisor and the journal wait before they tidy up and write."""


@dataclass(frozen=True)
class Reading:
    """The state after some processes: MiB, and numbers."""

    processes: int
    pid1_mb: float
    pid1_own_mb: float
    """Memory that it shares with nobody: the other part is smaller if there are more sandboxes."""
    worker_mb: float
    worker_fds: int
    api_mb: float
    sandbox_pids: int
    remembered: int
    """Processes that the API still lists."""
    audit_rows: int
    """Rows of the audit log, which records batches and is meant to grow."""
    other_rows: int


@dataclass
class Grown:
    """The readings of one run."""

    per_s: float = 0.0
    readings: list[Reading] = field(default_factory=list)


async def measure(count: int) -> Grown:
    """Run this many processes; read after each part of them."""
    grown = Grown()
    async with deployment(pool=2, pool_max=2) as deployed:
        wire = await Wire(deployed).open()
        sandbox, _ = await wire.create()
        took = 0.0
        done = 0
        # The first reading is of processes as remembered as there can be: that is not growth.
        for until in (
            FIRST,
            *(
                round(count * step / STEPS)
                for step in range(1, STEPS + 1)
                if count * step > FIRST * STEPS
            ),
        ):
            while done < until:
                took += await wire.true(sandbox)
                done += 1
            await asyncio.sleep(SETTLE_S)
            grown.readings.append(await _read(deployed, wire, sandbox, done))
        grown.per_s = round(done / took, 1)
        await wire.ask("DELETE", sandbox)
        wire.close()
    return grown


async def _read(deployed: Deployed, wire: Wire, sandbox: str, done: int) -> Reading:
    listed, _ = await wire.ask("GET", f"{sandbox}/processes")
    metrics, _ = await wire.ask("GET", f"{sandbox}/metrics")
    worker, api = (psutil.Process(deployed.pids()[name]) for name in ("worker", "api"))
    pid1 = psutil.Process(_pid1(deployed))
    audit, other = _rows(deployed)
    return Reading(
        processes=done,
        pid1_mb=round(pss_mb(pid1), 2),
        pid1_own_mb=round(pid1.memory_full_info().uss / 2**20, 2),
        worker_mb=round(pss_mb(worker), 1),
        worker_fds=worker.num_fds(),
        api_mb=round(pss_mb(api), 1),
        sandbox_pids=int(json.loads(metrics)["pids"] or 0),
        remembered=len(json.loads(listed)["items"]),
        audit_rows=audit,
        other_rows=other,
    )


def _pid1(deployed: Deployed) -> int:
    """Return the process id of the supervisor whose sandbox lives: the one container in use."""
    client = docker.APIClient(deployed.settings.docker_url, version="auto", timeout=30)
    try:
        return int(client.inspect_container(_container(deployed))["State"]["Pid"])
    finally:
        client.close()


def _container(deployed: Deployed) -> str:
    url = deployed.stack.services.postgres.url("postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT guest FROM sandboxes WHERE guest IS NOT NULL").fetchone()
    if found is None:
        raise RuntimeError("no sandbox lives")
    return str(found[0]["container_id"])


def _rows(deployed: Deployed) -> tuple[int, int]:
    """Return how many rows the audit log has, and all other tables together."""
    url = deployed.stack.services.postgres.url("postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE relkind = 'r' AND nspname = 'public'"
        ).fetchall()
        counts = {
            name: connection.execute(
                sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))
            ).fetchone()
            for (name,) in tables
        }
    rows = {name: int(count[0]) for name, count in counts.items() if count}
    audit = sum(count for name, count in rows.items() if name.startswith("audit"))
    return audit, sum(rows.values()) - audit


def sheet(grown: Grown) -> Sheet:
    """Return the readings as text for people."""
    made = Sheet(
        "processes", "PID 1", "own", "worker", "fds", "API", "pids", "known", "audit", "rows",
    )  # fmt: skip
    for each in grown.readings:
        made.add_row(*(f"{value:,}" for value in astuple(each)))
    made.note(
        f"{grown.per_s} processes a second, one after the other. PID 1, worker and API: "
        "proportional set size in MiB; own: what PID 1 shares with nobody; fds: the worker's "
        "descriptors; known: processes that the API lists; audit: rows of the log; rows: others."
    )
    return made
