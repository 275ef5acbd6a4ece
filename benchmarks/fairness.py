"""How long a quiet tenant's 10 executions take beside hostile neighbours, against alone.

Real sandboxes, everything in one run on one machine: beside a tenant with 1,000 waiting, beside one
whose few executions never end (at most half of the slots, as its terms say), and while one submits
and cancels as fast as it can; before and after each of them alone, so that the ratio holds when the
machine is noisy. Prints ratios of medians; with `--json` one line of JSON.
Usage: `python benchmarks/fairness.py [--rounds N] [--json]`.
"""

import argparse
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from runner import telemetry
from runner.cli.demo import temporary_state
from runner.client import Client
from runner.embedded.stack import Stack, stack
from runner.limits import load_sizes
from runner.models import Role, Tier
from runner.settings import Settings
from runner.store.db import Database
from runner.tenancy import create_key

QUIET = 10
NOISY = 1_000
STORM_THREADS = 2
PROGRAM: dict[str, Any] = {"command": ["sleep", "0.3"], "size": "nano"}
ENDLESS: dict[str, Any] = {"command": ["sleep", "300"], "size": "large"}
BOUND = 2.0
"""What the ratio must stay within."""


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


def batch(quiet: Client) -> float:
    """Submit the quiet tenant's executions at once; return seconds until the last has ended."""
    started = time.perf_counter()
    with ThreadPoolExecutor(QUIET) as threads:
        ended = list(threads.map(lambda _: quiet.run(**PROGRAM), range(QUIET)))
    took = time.perf_counter() - started
    if any(each.state != "succeeded" for each in ended):
        raise RuntimeError(f"an execution went wrong: {[each.detail for each in ended]}")
    return took


def clear(client: Client) -> None:
    """Cancel all that a tenant has waiting or running, and wait until it is gone."""
    while found := client.list(state=["queued", "starting", "running"], limit=200)[0]:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda each: client.cancel(each.id), found))


@contextmanager
def many_small(world: World) -> Iterator[None]:
    """Have a thousand of the same program wait."""
    noisy = world.client("noisy")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: noisy.submit(**PROGRAM), range(NOISY)))
    yield
    clear(noisy)


@contextmanager
def few_huge(world: World) -> Iterator[None]:
    """Have a few that never end hold half of the slots, and as many wait."""
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", choices=NEIGHBOURS, help="beside this one alone")
    parser.add_argument("--json", action="store_true", help="one line of JSON, too")
    asked = parser.parse_args()
    telemetry.configure("error", json=False)
    alone: dict[str, list[float]] = {}
    beside: dict[str, list[float]] = {}
    with deployment() as world:
        quiet = world.client("quiet")
        batch(quiet)
        for name in [asked.only] if asked.only else NEIGHBOURS:
            before = [batch(quiet) for _ in range(asked.rounds)]
            with NEIGHBOURS[name](world):
                beside[name] = [batch(quiet) for _ in range(asked.rounds)]
            alone[name] = before + [batch(quiet) for _ in range(asked.rounds)]
        slots = world.running.settings.slots
    table = Table(f"{QUIET} executions, s", "alone", "beside", "max", "ratio", f"within {BOUND:g}x")
    ratios = {}
    for name, took in beside.items():
        least, median = statistics.median(alone[name]), statistics.median(took)
        ratios[name] = round(median / least, 2)
        table.add_row(
            f"beside {name}", f"{least:.2f}", f"{median:.2f}", f"{max(took):.2f}",
            str(ratios[name]), "yes" if ratios[name] <= BOUND else "NO",
        )  # fmt: skip
    Console().print(table)
    if asked.json:
        figures = {
            "rounds": asked.rounds,
            "slots": slots,
            "cpus": os.cpu_count(),
            "alone_s": {name: round(statistics.median(each), 3) for name, each in alone.items()},
            "ratios": ratios,
            "kernel": platform.release(),
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
