"""Each fault of the catalogue, again and again, while executions run and sandboxes live.

    python -m benchmarks.chaos --rounds 10 --faults 1,2,13

Each fault has a deployment of its own. Clients submit executions and repeat with the same
idempotency key until they get an answer; sandboxes do mixed work (`benchmarks/resident_work.py`).
After each round, an execution must end, and each sandbox must answer. After all rounds, the
invariants are checked: each accepted execution has ended exactly once and ran at most once unless
it asked for more; no byte of a sandbox's output or files is lost or doubled; the ledger adds up;
each audit log, checkpoint and receipt holds; nothing is left behind. Exits with 1 if one is broken.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from agent_runner import Client
from benchmarks.attacks import HOST, Book
from benchmarks.chaos_faults import CATALOGUE, Fault, Scene
from benchmarks.chaos_load import GIVE_UP_S, SANDBOXES, Executions, Sandboxes
from benchmarks.clock import Clock
from benchmarks.faults import Far, Parts
from benchmarks.harness import WIDE, Figures, Sheet, machine, new_key, publish
from benchmarks.invariants import Visits, broken, left_behind, processes, unproven
from benchmarks.resident_work import Findings
from benchmarks.stress import with_ceiling
from runner.base import telemetry
from runner.base.settings import Settings
from runner.cli.demo import temporary_state
from runner.embedded.stack import Stack, stack
from runner.node.service import SWEEP_S
from tests.support.nodes import free_port

LEASE_S = 4.0
PROBE = {"command": ["true"], "size": "nano", "wait_s": 20, "on_worker_loss": "retry"}
PAUSE_S = (0.5, 1.5)
"""How long there is peace between two rounds."""


@dataclass
class Survived:
    """What one fault did, in all of its rounds."""

    number: int
    name: str
    rounds: int = 0
    executions: list[float] = field(default_factory=list)
    """Seconds from when the part was there again until an execution had succeeded."""
    sandboxes: list[float] = field(default_factory=list)
    """And until every sandbox answered."""
    saw: dict[str, int] = field(default_factory=dict)
    """Answers that clients got, by status, and connections without an answer."""
    accepted: int = 0
    wrong: list[str] = field(default_factory=list)


async def survive(fault: Fault, rounds: int) -> Survived:
    """Let a fault happen this often to a deployment of its own; return what became of it."""
    made, book = Survived(fault.number, fault.name), Book()
    with temporary_state(Settings()) as private:
        async with Visits.counted() as visits, Far.between(private) as far:
            settings = _settings(far.settings, visits.port)
            clock = Clock(private.state_dir) if fault.sets_clock else None
            with clock.given() if clock else nullcontext():
                async with stack(settings, ephemeral=True) as running:
                    await running.ready()
                    key = await new_key(running, "executions", reuse=False)
                    executions = Executions(settings.port, key, visits.port, book)
                    scene = Scene(Parts(running, far), executions, clock, LEASE_S)
                    findings = await _all_rounds(fault, rounds, scene, executions, made)
                    made.wrong += [*scene.wrong, *findings.wrong]
                    url = running.services.superuser_url
                    made.wrong += [*await broken(url, settings, book), *visits.unasked(book)]
                    made.wrong += await unproven(url, settings)
                    if fault.hits_docker:
                        # A node looks now and then for what it could not remove when it ended.
                        await asyncio.sleep(1.5 * SWEEP_S)
                    parts = processes(running)
        made.wrong += left_behind(private, parts)
    made.wrong += [f"{count} x {what}" for what, count in book.wrong.most_common()]
    made.accepted = len({*book.accepted})
    made.saw = _seen(book, findings)
    return made


async def _all_rounds(
    fault: Fault, rounds: int, scene: Scene, executions: Executions, made: Survived
) -> Findings:
    """Let the fault happen this often while both uses go on; return what sandboxes found."""
    running = scene.parts.stack
    async with _at_work(running, executions) as sandboxes:
        for _ in range(rounds):
            await asyncio.sleep(random.uniform(*PAUSE_S))  # noqa: S311 - no secret
            await _round(fault, scene, executions, sandboxes, made)
    return sandboxes.findings


def _settings(settings: Settings, visited: int) -> Settings:
    return settings.model_copy(
        update={
            # A port of its own: the API is started again.
            "port": free_port(),
            "rate_limits": WIDE,
            "log_level": "warning",
            "lease_s": LEASE_S,
            "reconcile_s": 0.5,
            "drain_s": 2.0,
            # As operators have it; the work ends its sandboxes itself.
            "sandboxes_on_stop": "leave",
            "sandboxes": SANDBOXES + 4,
            "profiles_dir": with_ceiling(settings, visited),
            "egress_hosts": {HOST: "127.0.0.1"},
            "egress_trusted_networks": ("127.0.0.0/8",),
        }
    )


@asynccontextmanager
async def _at_work(running: Stack, executions: Executions) -> AsyncIterator[Sandboxes]:
    """Let both uses go on inside the context; everything has ended when it does."""
    with ExitStack() as open_, ThreadPoolExecutor(4 * SANDBOXES) as threads:
        keys = [await new_key(running, f"sandboxes-{number}") for number in range(2)]
        clients = [open_.enter_context(Client(running.url, key)) for key in keys]
        sandboxes = Sandboxes(clients, threads)
        await sandboxes.begin()
        submitting = asyncio.create_task(executions.run())
        try:
            yield sandboxes
        finally:
            executions.over.set()
            await submitting
            await sandboxes.end()


async def _round(
    fault: Fault, scene: Scene, executions: Executions, sandboxes: Sandboxes, made: Survived
) -> None:
    await fault.act(scene)
    began = time.monotonic()

    async def execution() -> None:
        async with asyncio.timeout(GIVE_UP_S):
            while True:
                found = await executions.submit(PROBE)
                if found["state"] == "succeeded":
                    break
        made.executions.append(time.monotonic() - began)

    async def each_sandbox() -> None:
        await sandboxes.answer()
        made.sandboxes.append(time.monotonic() - began)

    try:
        await asyncio.gather(execution(), each_sandbox())
    except TimeoutError:
        made.wrong.append(
            f"no execution succeeded within {GIVE_UP_S:g} s of round {made.rounds + 1}"
        )
    made.rounds += 1


def _seen(book: Book, findings: Findings) -> dict[str, int]:
    """Return what clients of both uses were told."""
    seen: Counter[str] = Counter()
    for (_, status), count in book.answers.items():
        seen[str(status)] += count
    seen["no answer"] = book.done["no answer"]
    for what in ("calls while the node was away", "streams broken", "terminals that broke"):
        seen[what] = findings.counts[what]
    return {what: count for what, count in sorted(seen.items()) if count}


def sheet(survived: Sequence[Survived]) -> Sheet:
    """Return what became of each fault as a table."""
    made = Sheet(
        "fault", "times", "accepted", "clients saw",
        "executions back, s: median, most", "sandboxes back, s: median, most", "broken",
    )  # fmt: skip
    for each in survived:
        made.add_row(
            f"{each.number}. {each.name}",
            str(each.rounds),
            str(each.accepted),
            ", ".join(f"{count} x {what}" for what, count in each.saw.items()),
            _back(each.executions),
            _back(each.sandboxes),
            str(len(each.wrong)),
        )
    for each in survived:
        for what in each.wrong:
            made.note(f"BROKEN by {each.number}, {each.name}: {what}")
    return made


def _back(seconds: Sequence[float]) -> str:
    figures = Figures.of(seconds)
    return f"{figures.median / 1000:.1f}, {figures.most / 1000:.1f}"


def chosen(numbers: str) -> list[Fault]:
    """Return the faults of these numbers, such as `1,13`; all, if there are none.

    Raises ValueError for a number that is not in the catalogue.
    """
    known = {fault.number: fault for fault in CATALOGUE}
    wanted = [int(each) for each in numbers.split(",") if each]
    if unknown := sorted({*wanted} - known.keys()):
        raise ValueError(f"no fault {unknown[0]}: there are {', '.join(map(str, known))}")
    return [known[each] for each in wanted] or [*CATALOGUE]


async def run(faults: Sequence[Fault], rounds: int) -> list[Survived]:
    """Let each fault happen to a deployment of its own."""
    survived = []
    for fault in faults:
        began = time.monotonic()
        try:
            survived.append(await survive(fault, rounds))
        except Exception as error:  # noqa: BLE001 - the other faults are tried all the same
            told = f"this fault's run failed: {type(error).__name__}: {error}"
            survived.append(Survived(fault.number, fault.name, wrong=[told]))
        state = "broken" if survived[-1].wrong else "survived"
        say(f"{fault.number}. {fault.name}: {state}, {time.monotonic() - began:.0f} s")
        for each in survived[-1].wrong:
            say(f"   {each}")
    return survived


def say(text: str) -> None:
    """Print for whoever watches."""
    print(f"chaos: {datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="how often each fault happens")
    parser.add_argument("--faults", type=chosen, default=[*CATALOGUE], help="numbers: 1,13")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    telemetry.configure("error", json=False)
    survived = asyncio.run(run(given.faults, given.rounds))
    figures = {"faults": [asdict(each) for each in survived], "machine": machine()}
    publish(given.json, figures, sheet(survived))
    return 1 if any(each.wrong for each in survived) else 0


if __name__ == "__main__":
    sys.exit(main())
