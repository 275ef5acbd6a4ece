"""Runs a deployment of one state of the code and times what it is asked to: `states` starts it.

It uses only what `benchmarks.harness` has had since `aebdd1e`, and must run in every state since.
Each input line is a task in JSON; the answer is a line with its figures. One more line follows
when everything is cleaned up, so that cleaning is not measured. Usage: `python state_driver.py
POOL`, with how many sandboxes wait.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

from benchmarks.harness import PRINT, Deployed, deployment

SLOTS = 16


async def timed(deployed: Deployed, task: dict[str, Any]) -> dict[str, Any]:
    """Run a program so many times, so many at once; return seconds, and processor milliseconds."""
    body = {**PRINT, **task["body"]}
    callers = [await deployed.caller() for _ in range(task["at_once"])]
    left = iter(range(task["count"]))
    took: list[float] = []

    async def work(number: int) -> None:
        took.extend([await callers[number].expect(body) for _ in left])

    used = deployed.cpu_s()
    began = time.perf_counter()
    await asyncio.gather(*map(work, range(len(callers))))
    lasted = time.perf_counter() - began
    spent = {name: seconds - used[name] for name, seconds in deployed.cpu_s().items()}
    for caller in callers:
        caller.close()
    # It is a part of the worker's.
    del spent["the worker's event loop alone"]
    return {
        "took_s": took,
        "per_s": len(took) / lasted,
        "cpu_ms": {name: 1000 * seconds / len(took) for name, seconds in spent.items()},
    }


async def settled(deployed: Deployed) -> None:
    """Wait until the pool is full. Sandboxes that serve their tenant again stay beside it."""
    pool = deployed.settings.pool
    await deployed.settled(pool, pool + SLOTS)


async def main() -> None:
    """Answer until there is no more input."""
    pool = int(sys.argv[1])
    # The product's log goes to the standard output, too.
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        async with deployment(pool=pool, pool_max=pool, slots=SLOTS) as deployed:
            await settled(deployed)
            answers.write("{}\n")
            while task := await asyncio.to_thread(sys.stdin.readline):
                answers.write(json.dumps(await timed(deployed, json.loads(task))) + "\n")
                await settled(deployed)
                answers.write("{}\n")


if __name__ == "__main__":
    asyncio.run(main())
