"""Many living sandboxes with mixed work, while their worker is killed and started again.

    python -m benchmarks.soak --sandboxes 100 --tenants 10 --seconds 90 --kills 3

In each sandbox one process writes all the time; commands, files, a terminal and pauses come and go
(`benchmarks/resident_work.py`). Exits with 1 if a sandbox is lost, if a byte of output is lost or
doubled and nobody was told, or if anything is left behind. With `--processes 10000`, that many run
one after the other in one sandbox instead, and nothing may grow. With `--busy 50`, a tenant with so
many busy sandboxes is beside another one's single command.
"""

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from agent_runner import Client
from benchmarks import busy_neighbour, churn
from benchmarks.harness import (
    WIDE,
    Deployed,
    Figures,
    Sheet,
    arguments,
    machine,
    publish,
)
from benchmarks.invariants import left_behind, processes
from benchmarks.resident_work import Findings, SandboxWork
from runner.base import telemetry
from runner.base.settings import Settings
from runner.cli.demo import temporary_state
from runner.embedded.stack import stack

GIVE_UP_S = 60.0
PER_S = 10.0
"""How many things are done a second, in all sandboxes together."""
AT_ONCE = 8
"""How many sandboxes are made at once."""


@dataclass(frozen=True)
class Terms:
    """The size of a soak."""

    sandboxes: int
    tenants: int
    seconds: float
    kills: int


@dataclass(frozen=True)
class Soaked:
    """The results of a soak."""

    terms: Terms
    counts: dict[str, int]
    back: Figures
    """How long after the worker's start each sandbox answered again."""
    wrong: list[str]


async def soak(deployed: Deployed, terms: Terms, findings: Findings) -> list[float]:
    """Work in all sandboxes and kill the worker; return when each sandbox was back, in seconds."""
    keys = [await deployed.tenant(f"soak-{number}") for number in range(terms.tenants)]
    back: list[float] = []
    over = threading.Event()
    with ExitStack() as open_, ThreadPoolExecutor(2 * terms.sandboxes) as threads:
        clients = [open_.enter_context(Client(deployed.stack.url, key)) for key in keys]

        async def each(act: Callable[[SandboxWork], object], of: Sequence[SandboxWork]) -> None:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(threads, act, one) for one in of))

        works = [
            SandboxWork(
                clients[number % terms.tenants],
                number,
                findings,
                over,
                every_s=terms.sandboxes / PER_S,
            )
            for number in range(terms.sandboxes)
        ]
        for some in range(0, len(works), AT_ONCE):
            await each(SandboxWork.begin, works[some : some + AT_ONCE])
        say(f"{len(works)} sandboxes live")
        working = asyncio.ensure_future(each(SandboxWork.work, works))
        following = asyncio.ensure_future(each(SandboxWork.follow, works))
        for _ in range(terms.kills):
            await asyncio.sleep(terms.seconds / (terms.kills + 1))
            back += await killed(deployed, works)
        await asyncio.sleep(terms.seconds / (terms.kills + 1))
        over.set()
        await working
        say("the work is done")
        await each(SandboxWork.settle, works)
        await following
        await each(SandboxWork.end, works)
    return back


async def killed(deployed: Deployed, works: Sequence[SandboxWork]) -> list[float]:
    """End the worker as a crash would, and start the next; return when each was back."""
    await deployed.stack.worker.stop(signal.SIGKILL)
    say("the worker is dead")
    await asyncio.sleep(0.5)
    began = time.monotonic()
    deployed.stack.worker.start()

    def answers(work: SandboxWork) -> float:
        while not work.answers():
            if time.monotonic() > began + GIVE_UP_S:
                work.findings.wrong.append(f"{work} does not answer after the worker's restart")
                break
            time.sleep(0.1)
        return time.monotonic() - began

    def all_answer() -> list[float]:
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(answers, works))

    back = await asyncio.to_thread(all_answer)
    say(f"all sandboxes are back {max(back):.1f} s after the worker's start")
    return back


async def rows_left(deployed: Deployed, lived: int) -> list[str]:
    """Return what the database holds that it should not."""
    url = deployed.stack.services.postgres.url("postgres")
    wrong = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        async def rows(statement: bytes) -> list[tuple[Any, ...]]:
            return await (await connection.execute(statement)).fetchall()

        ends = await rows(b"SELECT state, reason, count(*) FROM sandboxes GROUP BY 1, 2")
        if [*ends] != [("ended", "killed", lived)]:
            wrong.append(f"not every sandbox ended as killed: {ends}")
        held = await rows(b"SELECT count(*) FROM sandboxes WHERE lease_until IS NOT NULL")
        if held != [(0,)]:
            wrong.append(f"{held} leases are left")
        twice = b"""SELECT resource_id, count(*) FROM audit_events
                    WHERE action = 'sandbox:end' GROUP BY 1 HAVING count(*) <> 1"""
        wrong += [f"sandbox {id_} ended {n} times" for id_, n in await rows(twice)]
        told = b"SELECT count(DISTINCT resource_id) FROM audit_events WHERE action = 'sandbox:end'"
        if (found := await rows(told)) != [(lived,)]:
            wrong.append(f"{found} sandboxes of {lived} have a record of their end")
    return wrong


async def run(terms: Terms) -> Soaked:
    """Soak a deployment of its own, and look what is left of it."""
    findings = Findings()
    with temporary_state(Settings()) as private:
        settings = private.model_copy(
            update={
                "port": 0, "rate_limits": WIDE, "log_level": "warning",
                "sandboxes": terms.sandboxes + 4,
            }
        )  # fmt: skip
        async with stack(settings, ephemeral=True) as running:
            await running.ready()
            deployed = Deployed(running, key="")
            back = await soak(deployed, terms, findings)
            findings.wrong += await rows_left(deployed, terms.sandboxes)
            parts = processes(running)
        findings.wrong += left_behind(settings, parts)
    return Soaked(terms, dict(findings.counts), Figures.of(back), findings.wrong)


def sheet(soaked: Soaked) -> Sheet:
    """Return what a soak showed as text for people."""
    terms = soaked.terms
    made = Sheet("what was done", "times")
    for name, count in sorted(soaked.counts.items()):
        made.add_row(name, f"{count:,}")
    made.note(
        f"{terms.sandboxes} sandboxes of {terms.tenants} tenants; the worker was killed "
        f"{terms.kills} times. Until a sandbox answered again after the worker's start: median "
        f"{soaked.back.median / 1000:.1f} s, most {soaked.back.most / 1000:.1f} s."
    )
    made.note("Nothing is broken." if not soaked.wrong else "BROKEN:")
    for each in soaked.wrong:
        made.note(f"  {each}")
    return made


def say(text: str) -> None:
    """Print for whoever watches."""
    print(f"soak: {datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    given = arguments(
        __doc__, sandboxes=100, tenants=10, seconds=90.0, kills=3, processes=0, busy=0
    )
    telemetry.configure("error", json=False)
    if given.processes:
        grown = asyncio.run(churn.measure(given.processes))
        publish(given.json, asdict(grown), churn.sheet(grown))
        return 0
    if given.busy:
        beside = asyncio.run(busy_neighbour.measure(given.busy))
        publish(given.json, asdict(beside), busy_neighbour.sheet(beside))
        return 0
    terms = Terms(given.sandboxes, given.tenants, given.seconds, given.kills)
    soaked = asyncio.run(run(terms))
    publish(given.json, {**asdict(soaked), "machine": machine()}, sheet(soaked))
    return 1 if soaked.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
