"""Compares runc and crun as Docker's runtime: containers of the daemon's, and our executions.

Both take turns, one block after the other, the first one changing from round to round, so that a
host whose speed changes slows both. The containers are configured as a worker configures them. As
root, with nothing beside it:

    WITH_DOCKER_RUNTIME=crun scripts/with-docker .venv/bin/python -m benchmarks.runtimes --rounds 10

Rates say little on a host that other work uses, too. `--group` also counts processor time, of a
group of the controller cpuacct into which you have moved dockerd and its containerd.
"""

import argparse
import asyncio
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from pathlib import Path

from benchmarks.daemon import Config, Daemon, Ours, daemon_rate, ours, timed
from benchmarks.harness import Sheet, machine, publish
from benchmarks.latency import image_id
from benchmarks.past_the_daemon import Clock
from benchmarks.states import FRESH, ROOT, Driver, Task, driver
from runner.base.settings import Settings
from runner.sandbox.engine.masks import RUNTIMES_OWN, own_masks
from runner.sandbox.engine.spec import container_config
from runner.words.sandbox import CRUN, RUNC

RUNTIMES = (RUNC, CRUN)
PARALLEL = (1, 2, 4)
EXECUTIONS = (
    Task("fresh executions/s, one after the other", FRESH, at_once=1, count=12),
    Task("fresh executions/s, 4 in flight", FRESH, at_once=4, count=24),
)
BLOCK_S = 5.0
LIVES, REST_S = 5, 0.3
"""Containers in a block, and seconds after it in which the daemon tidies up: that counts, too."""

Found = dict[str, dict[str, list[float]]]


def in_turn(number: int) -> Iterator[str]:
    """Return the runtimes in the order of one round."""
    return iter(RUNTIMES if number % 2 else reversed(RUNTIMES))


def told(what: str, number: int, found: Found) -> None:
    """Say what the round has given: an interrupted run keeps that."""
    last = {
        name: {runtime: round(rates[-1], 2) for runtime, rates in row.items()}
        for name, row in found.items()
    }
    print(f"{what}, round {number}: {last}", file=sys.stderr, flush=True)


def configured(given: Ours, runtime: str) -> Callable[[Config], object]:
    """Return what gives a container the configuration for this runtime."""

    def change(config: Config) -> None:
        masks = own_masks() if runtime == CRUN else RUNTIMES_OWN
        folder = Path(config["HostConfig"]["Mounts"][0]["Source"])
        masks.write(folder)
        host = replace(given.host, runtime=runtime, masks=masks)
        placement = replace(given.placement, socket_dir=folder)
        config.update(copy.deepcopy(container_config(placement, *given.terms, host)))

    return change


def containers(rounds: int) -> Found:
    """Return how many containers the daemon starts and removes in a second."""
    found: Found = {}
    settings = Settings()
    with ours(settings, asyncio.run(image_id(settings))) as given:
        for number in range(rounds):
            for parallel in PARALLEL:
                row = found.setdefault(f"containers/s, {parallel} at a time", {})
                for runtime in in_turn(number):
                    change = configured(given, runtime)
                    rate = daemon_rate(given, BLOCK_S, parallel, change=change)
                    row.setdefault(runtime, []).append(rate)
            told("containers", number + 1, found)
    return found


def costs(rounds: int, group: str) -> Found:
    """Return the processor milliseconds of one container's life, the daemon's part included."""
    row: dict[str, list[float]] = {}
    found: Found = {"processor ms of a container": row}
    settings, clock = Settings(), Clock(group)
    with ours(settings, asyncio.run(image_id(settings))) as given:
        given.host = replace(given.host, cgroup_parent=f"/{group}/containers")
        with given.seat() as seat, closing(Daemon(given.url)) as daemon:
            for number in range(rounds):
                for runtime in in_turn(number):
                    config = seat.changed(configured(given, runtime))
                    before = clock.read()
                    for _ in range(LIVES):
                        timed(seat, daemon, config, split=False)
                    # What a removal leaves to the daemon is its work, too.
                    time.sleep(REST_S)
                    row.setdefault(runtime, []).append(1000 * (clock.read() - before) / LIVES)
                told("processor", number + 1, found)
    return found


async def executions(rounds: int) -> Found:
    """Return how many executions a second a deployment without a pool runs in fresh sandboxes."""
    found: Found = {}
    async with AsyncExitStack() as opened:
        drivers: dict[str, Driver] = {}
        for runtime in RUNTIMES:
            running = driver(ROOT, 0, {"RUNNER_OCI_RUNTIME": runtime})
            drivers[runtime] = await opened.enter_async_context(running)
        # The first round warms up.
        for number in range(rounds + 1):
            for task in EXECUTIONS:
                for runtime in in_turn(number):
                    block = await drivers[runtime].run(task.asked(quick=False))
                    if number:
                        row = found.setdefault(task.name, {})
                        row.setdefault(runtime, []).append(block.per_s)
            told("executions", number, found)
    return found


def sheet(found: Found, rounds: int) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet("figure", RUNC, CRUN, "ratio", "quartiles")
    for name, row in found.items():
        parts = [crun / runc for runc, crun in zip(row[RUNC], row[CRUN], strict=True)]
        low, middle, high = statistics.quantiles(parts, n=4) if len(parts) > 1 else parts * 3
        medians = (f"{statistics.median(row[runtime]):.2f}" for runtime in RUNTIMES)
        shown.add_row(name, *medians, f"{middle:.2f}", f"{low:.2f} to {high:.2f}")
    shown.note(f"Medians of {rounds} rounds. *Ratio*: the median of what each pair says.")
    return shown


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--group", help="count the processor time of this cpuacct group")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    found = {
        **(costs(given.rounds, given.group) if given.group else {}),
        **containers(given.rounds),
        **asyncio.run(executions(given.rounds)),
    }
    results = {"rows": found, "rounds": given.rounds, "machine": machine()}
    publish(given.json, results, sheet(found, given.rounds))


if __name__ == "__main__":
    main()
