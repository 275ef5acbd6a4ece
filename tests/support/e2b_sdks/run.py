"""Run cases through the SDK of this environment: `run PACKAGE sync|async CASE…`.

Writes a line of JSON for each case, as soon as it is over.
"""

import asyncio
import json
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.support.e2b_sdks.case import Case
from tests.support.e2b_sdks.cases import CASES
from tests.support.e2b_sdks.world import SHARED_S, World

CASE_S = 300
"""How long a case may take; generous, because the host may be busy."""


async def run(package: str, names: Sequence[str], *, sync: bool) -> None:
    """Run cases of a package, one after another."""
    world = World(package, sync=sync)
    said = None
    try:
        world.box = await world(world.Sandbox.create(timeout=SHARED_S))
    except Exception:  # noqa: BLE001 - told for each case
        said = traceback.format_exc()
    try:
        for case in [CASES[package][name] for name in names]:
            started = time.monotonic()
            outcome, detail = ("failed", said) if said else await tried(world, case)
            tell(case.name, outcome, detail, time.monotonic() - started)
    finally:
        if world.box is not None:
            await world(world.box.kill())


async def tried(world: World, case: Case) -> tuple[str, str]:
    """Return what became of a case."""
    if lack := world.lacks(case.needs):
        return "lacks", lack
    try:
        with in_time(applies=world.sync):
            await asyncio.wait_for(asyncio.ensure_future(case.attempt(world)), CASE_S)
    except Exception:  # noqa: BLE001 - reported
        return "failed", traceback.format_exc()
    return "works", ""


@contextmanager
def in_time(*, applies: bool) -> Iterator[None]:
    """End a case of the sync classes, which no event loop can interrupt."""

    def over(*_: object) -> None:
        raise TimeoutError(f"over {CASE_S} s")

    if not applies:
        yield
        return
    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(CASE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tell(name: str, outcome: str, detail: str, seconds: float) -> None:
    """Say what became of a case."""
    line = {"case": name, "outcome": outcome, "detail": detail, "seconds": round(seconds, 2)}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[3:], sync=sys.argv[2] == "sync"))
