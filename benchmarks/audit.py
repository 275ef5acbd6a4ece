"""The audit log under load: appends by several writers, verification, export, the worker's sweeps.

It uses a PostgreSQL of its own that keeps every commit durable. Each run of writers ends with a
verification of every chain that they wrote, so a fork would be found. Writers are tasks of one
process, each with a connection of its own; an append is one transaction, as in the product. Prints
a table and one line of JSON. Usage: `python benchmarks/audit.py [SECONDS]`.
"""

import asyncio
import json
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from benchmarks.harness import DISK
from runner.audit import chain, checkpoints, export, offline
from runner.audit import events as audit
from runner.audit.checkpoints import Checkpoint, Checkpointer
from runner.audit.memory import Memory
from runner.base.signing import Signer, TrustedKeys
from runner.embedded.services import Services, services
from runner.store.db import Database
from runner.store.migrations import migrate
from runner.words.ids import new_id

SECONDS = 5.0
WRITERS = (1, 4, 16)
CHAINS = (1, 16)
RECORDS = 50_000
MANY_CHAINS = 10_000


def event(number: int) -> audit.AuditEvent:
    """Return a record like the one that the end of an execution leaves."""
    return audit.AuditEvent(
        actor="system:worker",
        action=audit.Action.EXECUTION_END,
        outcome=audit.Outcome.SUCCESS,
        resource_type="execution",
        resource_id=str(new_id()),
        metadata={"attempt": 1, "state": "succeeded", "exit_code": 0, "number": number},
    )


async def append_for(
    database: Database, tenants: list[UUID], writers: int, seconds: float
) -> tuple[float, float]:
    """Append for a while; return appends per second, and the 99th percentile in ms."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def write(first: int) -> None:
        number = first
        while (began := time.perf_counter()) < end:
            tenant = tenants[number % len(tenants)]
            async with database.tenant(tenant) as tx:
                audit.append(tx, tenant, event(number))
            taken.append(time.perf_counter() - began)
            number += writers

    await asyncio.gather(*(write(number) for number in range(writers)))
    taken.sort()
    return len(taken) / seconds, 1000 * taken[int(0.99 * len(taken))]


async def whole(database: Database, tenants: list[UUID]) -> int:
    """Verify each chain; return how many records they have. Raises RuntimeError for a fault."""
    records = 0
    for tenant in tenants:
        verdict = await chain.verify(database, tenant)
        if verdict.fault is not None:
            raise RuntimeError(f"the chain does not hold: {verdict.fault}")
        records += verdict.records
    return records


async def appends(url: SecretStr, seconds: float) -> list[dict[str, float]]:
    """Measure each number of writers on each number of chains."""
    rows = []
    for chains in CHAINS:
        for writers in WRITERS:
            tenants = [new_id() for _ in range(chains)]
            async with Database(url, max_size=writers) as database:
                await append_for(database, tenants, writers, 0.5)
                rate, slow = await append_for(database, tenants, writers, seconds)
                records = await whole(database, tenants)
            rows.append(
                {
                    "chains": chains,
                    "writers": writers,
                    "per_s": round(rate),
                    "p99_ms": round(slow, 1),
                    "records_verified": records,
                }
            )
    return rows


async def reading(url: SecretStr, folder: Path, owner: psycopg.Connection) -> dict[str, int]:
    """Return records per second: verified in place, exported, and verified offline."""
    tenant, signer = new_id(), Signer.open(folder)
    async with Database(url, max_size=16) as database:
        await append_for(database, [tenant], 16, 1.0)
        owner.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
        # In parts: within one transaction, each append walks past all earlier versions of the head.
        for _ in range(RECORDS // 500):
            owner.execute(
                "INSERT INTO audit_events (tenant_id, body) SELECT e.tenant_id, e.body FROM "
                "audit_events e, generate_series(1, 500) WHERE e.tenant_id = %s AND e.seq = 1",
                [tenant],
            )
        began = time.perf_counter()
        records = await whole(database, [tenant])
        verified = time.perf_counter() - began
        whole_log = await chain.verify(database, tenant)
        head = chain.Head(whole_log.records, bytes.fromhex(whole_log.head))
        document = checkpoints.sign(signer, tenant, head, datetime.now(UTC))
        sealed = checkpoints.read(document, signer.public_keys)
        file = folder / "export.ndjson"
        began = time.perf_counter()
        await _export(database, tenant, sealed, signer, file)
        exported = time.perf_counter() - began
    began = time.perf_counter()
    with file.open(encoding="utf-8") as lines:
        report = offline.verify(lines, signer.public_keys)
    checked = time.perf_counter() - began
    if report.findings or report.records != records:
        raise RuntimeError(f"the export does not hold: {report.findings[:1]}")
    return {
        "records": records,
        "verified_per_s": round(records / verified),
        "exported_per_s": round(records / exported),
        "verified_offline_per_s": round(records / checked),
    }


async def _export(
    database: Database, tenant: UUID, sealed: Checkpoint, signer: Signer, file: Path
) -> None:
    with file.open("wb") as sink:
        pieces = export.lines(database, tenant, audit.Filter(), sealed, signer.public_keys)
        async for piece in pieces:
            sink.write(piece)


async def sweeping(url: SecretStr, folder: Path, owner: psycopg.Connection) -> dict[str, float]:
    """Return how long the worker takes to look for work among many chains, in milliseconds."""
    owner.execute(
        "INSERT INTO audit_heads SELECT gen_random_uuid(), 1, sha256('x') "
        "FROM generate_series(1, %s)",
        [MANY_CHAINS],
    )
    owner.execute(
        "INSERT INTO audit_checkpoints (tenant_id, seq, document) "
        "SELECT tenant_id, seq, '{}' FROM audit_heads ON CONFLICT DO NOTHING"
    )
    owner.execute(
        "INSERT INTO audit_cursors (tenant_id, sink, seq) "
        "SELECT tenant_id, 'tenant', seq FROM audit_heads ON CONFLICT DO NOTHING"
    )
    owner.execute("ANALYZE")
    async with Database(url, max_size=2) as database:
        keeper = Checkpointer(
            database=database,
            signer=Signer.open(folder),
            trusted=TrustedKeys(folder),
            memory=Memory(folder),
            age=timedelta(minutes=1),
        )

        async def claim() -> None:
            async with database.no_tenant() as tx:
                await tx.one("audit.claim_delivery", sink="tenant", lease=timedelta(seconds=1))

        return {
            "chains": MANY_CHAINS,
            "checkpoints_ms": await _median(keeper.sweep),
            "deliveries_ms": await _median(claim),
        }


async def _median(action: Callable[[], Awaitable[None]]) -> float:
    """Return the median of several runs, in milliseconds."""
    taken = []
    for _ in range(9):
        began = time.perf_counter()
        await action()
        taken.append(1000 * (time.perf_counter() - began))
    return round(sorted(taken)[4], 1)


@contextmanager
def store() -> Iterator[tuple[Services, Path]]:
    """Run a migrated PostgreSQL in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="runner-bench-", dir=DISK) as name:
        folder = Path(name)
        folder.chmod(0o711)
        with services(folder) as running:
            migrate(SecretStr(running.owner_url))
            yield running, folder


async def main(seconds: float) -> None:
    """Measure and print."""
    with store() as (running, folder):
        url = SecretStr(running.worker_url)
        superuser = running.postgres.url("postgres", "runner")
        rows = await appends(url, seconds)
        with psycopg.connect(superuser, autocommit=True) as owner:
            read = await reading(url, folder, owner)
            swept = await sweeping(url, folder, owner)
    console = Console()
    table = Table("chains", "writers", "appends/s", "p99 ms", "records verified, no fork")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    table = Table("figure", "value")
    for name, value in (*read.items(), *swept.items()):
        table.add_row(name, str(value))
    console.print(table)
    figures = {"machine": platform.platform(), "appends": rows, "reading": read, "sweeps": swept}
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
