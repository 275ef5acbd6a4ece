"""How cost grows: with the number of tenants, of stored executions, and of waiting executions.

A quiet tenant's `print(1)` measures each step, in the same deployment as the step before it. What a
noisy tenant does to a quiet one is measured by `python -m benchmarks.fairness`. Usage: `python -m
benchmarks.growth`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from pydantic import SecretStr

from benchmarks.harness import PRINT, Deployed, Figures, Sheet, arguments, deployment, publish
from runner.base import telemetry
from runner.quotas.sizes import load_sizes
from runner.store.db import Database
from runner.tenants.tenancy import create_key
from runner.words.principal import Role, Tier

POOL = 40
WAITING = 10_000
NOISY = "growth-noisy"
TENANTS = (1, 10, 100, 1000)
STORED = (1000, 100_000, 1_000_000)
COPY = sql.SQL(
    "INSERT INTO {table} ({columns}) SELECT {values} FROM {table} t, generate_series(1, %(count)s) "
    "WHERE t.execution_id = %(template)s"
)
COLUMNS = (
    "SELECT attname FROM pg_attribute "
    "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
)
NEW = {"execution_id": "gen_random_uuid()"}
QUEUED = {
    **NEW,
    **dict.fromkeys(("started_at", "ended_at", "result"), "NULL"),
    "state": "'queued'",
    "attempt": "0",
    "queued_at": "clock_timestamp()",
}


@dataclass(frozen=True)
class Step:
    """A quiet tenant's latency at one number of things."""

    what: str
    count: int
    figures: Figures


async def looked(deployed: Deployed, what: str, count: int, keys: Sequence[str]) -> Step:
    """Measure one execution after the other, each of the next tenant, with a full pool."""
    await deployed.settled(POOL)
    took = []
    for number in range(POOL - 5):
        caller = await deployed.caller(keys[number % len(keys)])
        took.append(await caller.expect(PRINT))
        caller.close()
    return Step(what, count, Figures.of(took))


async def tenants(deployed: Deployed, count: int) -> list[str]:
    """Return the keys of this many new tenants."""
    settings, services = deployed.settings, deployed.stack.services
    sizes = load_sizes(settings.profiles_path)
    async with Database(SecretStr(services.owner_url), max_size=1) as owner:
        made = [
            await create_key(
                owner, tenant=f"growth-{number}", role=Role.OWNER, name="benchmark",
                max_limits=sizes["large"], tier=Tier.ENTERPRISE,
            )
            for number in range(count)
        ]  # fmt: skip
    return [each.token for each in made]


def copy(deployed: Deployed, template: str, count: int, *, waiting: bool = False) -> None:
    """Store this many executions like one that has ended, with its events; or waiting ones."""
    with psycopg.connect(
        deployed.stack.services.postgres.url("postgres"), autocommit=True
    ) as connection:
        given = {"count": count, "template": template}

        def multiply(table: str, changes: dict[str, str]) -> None:
            columns = [name for (name,) in connection.execute(COLUMNS, [table]).fetchall()]
            values = [sql.SQL(changes.get(name, f't."{name}"')) for name in columns]
            connection.execute(
                COPY.format(
                    table=sql.Identifier(table),
                    columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
                    values=sql.SQL(", ").join(values),
                ),
                given,
            )

        if waiting:
            multiply("executions", QUEUED)
            return
        # Without the triggers: their counts are already stored.
        connection.execute("SET session_replication_role = replica")
        multiply("executions", NEW)
        multiply("events", NEW)
        connection.execute("ANALYZE executions, events")


async def measure() -> dict[str, Any]:
    """Measure every step."""
    steps: list[Step] = []
    async with deployment(pool=POOL, pool_max=POOL, slots=4) as deployed:
        for count in TENANTS:
            keys = await tenants(deployed, count)
            steps.append(await looked(deployed, "tenants", count, keys))
        caller = await deployed.caller()
        _, answer, _ = await caller.submit(PRINT)
        caller.close()
        there = 0
        for count in STORED:
            await asyncio.to_thread(copy, deployed, answer["id"], count - there)
            there = count
            steps.append(await looked(deployed, "executions stored", count, [deployed.key]))
        noisy = await deployed.caller(await deployed.tenant(NOISY, max_concurrency=1))
        _, answer, _ = await noisy.submit({**PRINT, "command": ["sleep", "1"], **_PROGRAM})
        noisy.close()
        quiet = await deployed.tenant("growth-quiet")
        steps.append(await looked(deployed, "executions waiting, of another", 0, [quiet]))
        await asyncio.to_thread(copy, deployed, answer["id"], WAITING, waiting=True)
        steps.append(await beside(deployed, quiet))
    return {"rows": steps}


_PROGRAM: dict[str, Any] = {"code": None, "language": None}


async def beside(deployed: Deployed, key: str) -> Step:
    """Measure the quiet tenant while another's executions wait, one of which runs at any time."""
    took = []
    for _ in range(POOL // 2):
        caller = await deployed.caller(key)
        took.append(await caller.expect(PRINT))
        caller.close()
    return Step("executions waiting, of another", WAITING, Figures.of(took))


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet("growth, ms", "count", "median", "p95")
    for each in results["rows"]:
        figures = each.figures
        shown.add_row(each.what, f"{each.count:,}", str(figures.median), str(figures.p95))
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure())
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
