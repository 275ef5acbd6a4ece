"""A client in an environment of its own, which has E2B's SDK: started by `e2b` and `e2b_kills`.

It obeys lines of JSON: `{"way": "e2b" or "native", "count": 3, "apart_s": 0.2}` makes so many
sandboxes, each so long after the one before (null: one by one), and runs `node -v` in each; a
line tells the seconds of each, from the call to the checked result, or its failure. `{"churn":
true}` makes and kills sandboxes until the process is killed, and writes a line after each step.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from agent_runner import Client

COMMAND = "node -v"
LIVES_S = 300
REST_S = 0.5
"""After sandboxes have ended: the daemon goes on tidying up."""


@dataclass(frozen=True)
class Way:
    """A way to make a sandbox, to run the command in it, and to read its output."""

    make: Callable[[], Any]
    run: Callable[[Any], str]


def by_e2b(sdk: Any) -> Way:
    """Return how E2B's SDK does it."""
    return Way(
        lambda: sdk.Sandbox.create("base", timeout=LIVES_S),
        lambda made: str(made.commands.run(COMMAND).stdout),
    )


def by_native(client: Client) -> Way:
    """Return how our own SDK does it."""
    return Way(
        lambda: client.sandboxes.create(image="base", timeout_s=LIVES_S),
        lambda made: str(made.run(COMMAND).stdout.text),
    )


def measured(way: Way) -> tuple[dict[str, Any], Any]:
    """Return the seconds of one sandbox, or its failure, and the sandbox, which is to be ended."""
    made = None
    began = time.perf_counter()
    try:
        made = way.make()
        created = time.perf_counter()
        stdout = way.run(made)
        ended = time.perf_counter()
        if not stdout.startswith("v"):
            raise RuntimeError(f"{COMMAND} put out {stdout!r}")  # noqa: TRY301 - told as all others
    except Exception as error:  # noqa: BLE001 - told
        return {"failed": f"{type(error).__name__}: {error}"[:300]}, made
    return {"created": created - began, "took": ended - began}, made


def obey(order: dict[str, Any], ways: dict[str, Way]) -> list[dict[str, Any]]:
    """Measure as ordered. Nothing ends before all that are measured together have their result."""
    way, count, apart_s = ways[order["way"]], order["count"], order["apart_s"]

    def one(number: int) -> tuple[dict[str, Any], Any]:
        time.sleep(number * (apart_s or 0))
        return measured(way)

    with ThreadPoolExecutor(count if apart_s is not None else 1) as threads:
        found = list(threads.map(one, range(count)))
        list(threads.map(lambda each: each[1] and each[1].kill(), found))
    time.sleep(REST_S)
    return [figures for figures, _ in found]


def churn(sdk: Any) -> None:
    """Make and kill sandboxes for ever."""
    lives_s, host = int(os.environ["CHURN_LIVES_S"]), os.environ["CHURN_HOST"]
    while True:
        try:
            made = sdk.Sandbox.create("base", timeout=lives_s, network={"allow_out": [host]})
        except sdk.ServiceBusyException as error:
            # A host may be too busy to start a container in time: it says so, and is asked again.
            print(f"busy: {error}", file=sys.stderr)
            print("busy", flush=True)
            continue
        print("made", flush=True)
        made.commands.run("true")
        print("used", flush=True)
        made.kill()
        print("killed", flush=True)


def main() -> None:
    """Obey."""
    sdk = importlib.import_module("e2b")
    with Client(os.environ["E2B_API_URL"], os.environ["NATIVE_KEY"], retry_for_s=0) as client:
        ways = {"e2b": by_e2b(sdk), "native": by_native(client)}
        for line in sys.stdin:
            order = json.loads(line)
            if order.get("churn"):
                churn(sdk)
            print(json.dumps(obey(order, ways)), flush=True)


if __name__ == "__main__":
    main()
