"""How long a quiet tenant's 10 executions take beside hostile neighbours, compared with alone.

It uses real sandboxes, all in one run on one machine. The neighbours are a tenant with 1,000
waiting executions, one whose few executions never end (its terms let them hold at most half of the
slots), and one that submits and cancels as fast as it can. The quiet tenant also runs alone before
and after each of them, so that the ratio holds on a noisy machine. Measured are the time until the
last execution of a batch has ended, and the p95 of all executions. Usage: `python -m
benchmarks.fairness [--rounds N] [--only NEIGHBOUR]`.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import SecretStr
from rich.console import Console

from agent_runner import Client
from benchmarks.harness import Figures, Sheet, publish
from runner.base import telemetry
from runner.base.settings import Settings
from runner.cli.demo import temporary_state
from runner.embedded.stack import Stack, stack
from runner.quotas.sizes import load_sizes
from runner.store.db import Database
from runner.tenants.tenancy import create_key
from runner.words.principal import Role, Tier

QUIET = 10
NOISY = 1_000
STORM_THREADS = 2
PROGRAM: dict[str, Any] = {"command": ["sleep", "0.3"], "size": "nano"}
ENDLESS: dict[str, Any] = {"command": ["sleep", "300"], "size": "large"}
BOUND = 2.0
"""The largest acceptable ratio."""


@dataclass(frozen=True)
class World:
    """A running deployment."""

    running: Stack
    portal: BlockingPortal
    clients: ExitStack

    def client(self, tenant: str, concurrency: int | None = None) -> Client:
        """Return a client of a new tenant; all are of one tier, so that weights are equal."""

        async def make() -> str:
            async with Database(SecretStr(self.running.services.owner_url), max_size=1) as owner:
                made = await create_key(
                    owner, tenant=tenant, role=Role.OWNER, name="bench", tier=Tier.ENTERPRISE,
                    max_limits=load_sizes(self.running.settings.profiles_path)["large"],
                    max_concurrency=concurrency,
                )  # fmt: skip
            return made.token

        return self.clients.enter_context(Client(self.running.url, self.portal.call(make)))


@contextmanager
def deployment() -> Iterator[World]:
    """Run a deployment in a folder of its own."""
    with temporary_state(Settings()) as private, ExitStack() as clients:
        given = private.model_copy(update={"port": 0, "drain_s": 0.5})
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(stack(given, ephemeral=True)) as running,
        ):
            portal.call(running.ready)
            yield World(running, portal, clients)
            clients.close()


def batch(quiet: Client) -> list[float]:
    """Submit the quiet tenant's executions at once; return the seconds until each has ended."""

    def one(_: int) -> float:
        started = time.perf_counter()
        ended = quiet.run(**PROGRAM)
        if ended.state != "succeeded":
            raise RuntimeError(f"an execution went wrong: {ended.detail}")
        return time.perf_counter() - started

    with ThreadPoolExecutor(QUIET) as threads:
        return list(threads.map(one, range(QUIET)))


def clear(client: Client) -> None:
    """Cancel all that a tenant has waiting or running, and wait until it is gone."""
    while found := client.list(state=["queued", "starting", "running"], limit=200)[0]:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda each: client.cancel(each.id), found))


@contextmanager
def many_small(world: World) -> Iterator[None]:
    """Let a thousand executions of the same program wait."""
    noisy = world.client("noisy")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: noisy.submit(**PROGRAM), range(NOISY)))
    yield
    clear(noisy)


@contextmanager
def few_huge(world: World) -> Iterator[None]:
    """Let a few executions that never end hold half of the slots, and as many wait."""
    slots = world.running.settings.slots
    huge = world.client("huge", concurrency=slots // 2)
    for _ in range(slots):
        huge.submit(**ENDLESS)
    yield
    clear(huge)


@contextmanager
def cancel_storm(world: World) -> Iterator[None]:
    """Submit and cancel without a pause."""
    storms = [world.client("storm") for _ in range(STORM_THREADS)]
    over = threading.Event()
    done = []

    def blow(client: Client) -> None:
        while not over.is_set():
            client.cancel(client.submit(**PROGRAM).id)
            done.append(1)

    with ThreadPoolExecutor(STORM_THREADS) as threads:
        blowing = [threads.submit(blow, client) for client in storms]
        yield
        over.set()
        for each in blowing:
            each.result()
    Console(stderr=True).print(f"the storm: {len(done)} submitted and cancelled")
    clear(storms[0])


NEIGHBOURS = {"1,000 small": many_small, "few huge": few_huge, "cancel storm": cancel_storm}


@dataclass(frozen=True)
class Beside:
    """The quiet tenant's executions beside a neighbour, and alone."""

    neighbour: str
    alone: Figures
    beside: Figures
    last_alone_s: float
    last_beside_s: float

    @property
    def ratios(self) -> tuple[float, float]:
        """How many times longer it takes: a whole batch in the median, and executions at p95."""
        return self.last_beside_s / self.last_alone_s, self.beside.p95 / self.alone.p95


def of_batches(neighbour: str, alone: list[list[float]], beside: list[list[float]]) -> Beside:
    """Return the figures of these batches."""
    return Beside(
        neighbour,
        Figures.of([each for took in alone for each in took]),
        Figures.of([each for took in beside for each in took]),
        round(statistics.median(map(max, alone)), 3),
        round(statistics.median(map(max, beside)), 3),
    )


def measure(rounds: int, only: str | None) -> dict[str, Any]:
    """Measure beside each neighbour, and alone before and after it."""
    rows = []
    with deployment() as world:
        quiet = world.client("quiet")
        batch(quiet)
        for name in [only] if only else NEIGHBOURS:
            alone = [batch(quiet) for _ in range(rounds)]
            with NEIGHBOURS[name](world):
                beside = [batch(quiet) for _ in range(rounds)]
            alone += [batch(quiet) for _ in range(rounds)]
            rows.append(of_batches(name, alone, beside))
        return {"rows": rows, "slots": world.running.settings.slots}


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet(
        f"{QUIET} executions", "last, alone, s", "last, beside, s", "times", "p95, alone, ms",
        "p95, beside, ms", "times", f"within {BOUND:g}x",
    )  # fmt: skip
    for each in results["rows"]:
        last, p95 = each.ratios
        shown.add_row(
            f"beside {each.neighbour}", str(each.last_alone_s), str(each.last_beside_s),
            f"{last:.2f}", str(each.alone.p95), str(each.beside.p95), f"{p95:.2f}",
            "yes" if max(last, p95) <= BOUND else "NO",
        )  # fmt: skip
    return shown


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", choices=NEIGHBOURS, help="beside this one alone")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    telemetry.configure("error", json=False)
    results = measure(given.rounds, given.only)
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
