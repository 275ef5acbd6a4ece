"""How cost grows: with tenants, with executions stored, with executions waiting.

Each step is measured in the same deployment as the one before it, by a quiet tenant's `print(1)`.
What a noisy tenant does to a quiet one is measured by `python -m benchmarks.fairness`.
Usage: `python -m benchmarks.growth`; `--full 1` goes to 1,000 tenants and a million executions.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from pydantic import SecretStr

from benchmarks.harness import PRINT, Deployed, Figures, Sheet, arguments, deployment, publish
from runner import telemetry
from runner.limits import load_sizes
from runner.models import Role, Tier
from runner.store.db import Database
from runner.tenancy import create_key

POOL = 40
WAITING = 10_000
NOISY = "growth-noisy"
STEPS = {"tenants": ((1, 10, 100), (1000,)), "stored": ((1000, 100_000), (1_000_000,))}
COPY = """
INSERT INTO {table} SELECT (jsonb_populate_record(t, jsonb_build_object({changes}))).*
FROM {table} t, generate_series(1, %(count)s) WHERE t.execution_id = %(template)s
"""


@dataclass(frozen=True)
class Step:
    """A quiet tenant's latency with so many of something there."""

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
    """Return the keys of so many new tenants."""
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


def copy(deployed: Deployed, template: str, count: int, *, state: str | None = None) -> None:
    """Store so many executions like one that has ended, with its events; or waiting ones."""
    with psycopg.connect(
        deployed.stack.services.postgres.url("postgres"), autocommit=True
    ) as connection:
        new_id = "'execution_id', gen_random_uuid()"
        given = {"count": count, "template": template}
        if state is not None:
            changes = (
                f"{new_id}, 'state', '{state}', 'attempt', 0, 'started_at', null, "
                "'ended_at', null, 'result', null, 'queued_at', clock_timestamp()"
            )
            connection.execute(COPY.format(table="executions", changes=changes).encode(), given)
            return
        # Without the triggers: what they count has been counted.
        connection.execute(b"SET session_replication_role = replica")
        connection.execute(COPY.format(table="executions", changes=new_id).encode(), given)
        connection.execute(COPY.format(table="events", changes=new_id).encode(), given)
        connection.execute(b"ANALYZE executions, events")


async def measure(full: float) -> dict[str, Any]:
    """Measure every step."""
    steps: list[Step] = []
    async with deployment(pool=POOL, pool_max=POOL, slots=4) as deployed:
        for count in (*STEPS["tenants"][0], *(STEPS["tenants"][1] if full else ())):
            keys = await tenants(deployed, count)
            steps.append(await looked(deployed, "tenants", count, keys))
        caller = await deployed.caller()
        _, answer, _ = await caller.submit(PRINT)
        caller.close()
        there = 0
        for count in (*STEPS["stored"][0], *(STEPS["stored"][1] if full else ())):
            await asyncio.to_thread(copy, deployed, answer["id"], count - there)
            there = count
            steps.append(await looked(deployed, "executions stored", count, [deployed.key]))
        noisy = await deployed.caller(await deployed.tenant(NOISY, max_concurrency=1))
        _, answer, _ = await noisy.submit({**PRINT, "command": ["sleep", "1"], **_PROGRAM})
        noisy.close()
        quiet = await deployed.tenant("growth-quiet")
        steps.append(await looked(deployed, "executions waiting, of another", 0, [quiet]))
        await asyncio.to_thread(copy, deployed, answer["id"], WAITING, state="queued")
        steps.append(await beside(deployed, quiet))
    return {"rows": steps}


_PROGRAM: dict[str, Any] = {"code": None, "language": None}


async def beside(deployed: Deployed, key: str) -> Step:
    """Measure the quiet tenant while another's wait, one of which runs at any time."""
    took = []
    for _ in range(POOL // 2):
        caller = await deployed.caller(key)
        took.append(await caller.expect(PRINT))
        caller.close()
    return Step("executions waiting, of another", WAITING, Figures.of(took))


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures for people."""
    shown = Sheet("growth, ms", "count", "median", "p95")
    for each in results["rows"]:
        figures = each.figures
        shown.add_row(each.what, f"{each.count:,}", str(figures.median), str(figures.p95))
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, full=0)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(given.full))
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
