"""Time to interactive through E2B's unmodified SDK, beside our own SDK in the same run.

From the create call to the result of `node -v`, in the three usual modes: sequential, staggered
(one every 200 ms), burst (all at once). The two SDKs take turns, in one process of an environment
of its own. Every single figure is kept. Usage: `python -m benchmarks.e2b --rounds 100`.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    DISK,
    Deployed,
    Figures,
    Sheet,
    arguments,
    deployment,
    publish,
    score,
)
from runner.auth.keys import in_e2b_form
from runner.base import telemetry
from runner.base.settings import project_root
from tests.support.environments import Environments

WAYS = ("native", "e2b")
MODES: dict[str, float | None] = {"sequential": None, "staggered": 0.2, "burst": 0.0}
WARM_UP = 2
AIM = 1.3
TEMPLATE = "base"


class Driver:
    """The process with both SDKs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, **order: Any) -> list[dict[str, Any]]:
        """Return what it measured. Raises RuntimeError if it has ended."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the client has no pipes")
        stdin.write(json.dumps(order).encode() + b"\n")
        if not (line := await stdout.readline()):
            raise RuntimeError("the client has ended: see its errors above")
        found: list[dict[str, Any]] = json.loads(line)
        return found


def interpreter(folder: Path) -> Path:
    """Return a Python with the newest of E2B's SDKs and what ours needs, below this folder."""
    about = tomllib.loads((project_root() / "sdk" / "python" / "pyproject.toml").read_text())
    wanted = " ".join(["e2b", *about["project"]["dependencies"]])
    return Environments(folder).python(wanted)


def environment(deployed: Deployed) -> dict[str, str]:
    """Return the environment of a client of both SDKs."""
    url = deployed.stack.url
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(project_root() / "sdk" / "python" / "src"),
        "E2B_API_KEY": in_e2b_form(deployed.key),
        "E2B_API_URL": url,
        "E2B_SANDBOX_URL": url,
        "NATIVE_KEY": deployed.key,
    }


@asynccontextmanager
async def driver(python: Path, deployed: Deployed) -> AsyncIterator[Driver]:
    """Run the client."""
    process = await asyncio.create_subprocess_exec(
        str(python), "-P", str(Path(__file__).with_name("e2b_client.py")),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env=environment(deployed), limit=2**22,
    )  # fmt: skip
    try:
        yield Driver(process)
    finally:
        process.kill()
        await process.wait()


async def measure(rounds: int, pool: int) -> dict[str, Any]:
    """Measure both ways in every mode, round by round or batch by batch."""
    began = time.monotonic()
    raw: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(dir=DISK) as folder:
        python = await asyncio.to_thread(interpreter, Path(folder))
        async with (
            deployment(images=(TEMPLATE,), pool=pool, pool_max=pool) as deployed,
            driver(python, deployed) as client,
        ):
            for way in WAYS:
                await client.ask(way=way, count=WARM_UP, apart_s=None)
            for mode, apart_s in MODES.items():
                # One at a time in turn; what runs together, all of one way and then of the other.
                batches, size = (rounds, 1) if apart_s is None else (1, rounds)
                for number in range(batches):
                    for way in WAYS if number % 2 else WAYS[::-1]:
                        if apart_s is not None or number % max(1, pool // 4) == 0:
                            await deployed.settled(pool)
                        found = await client.ask(way=way, count=size, apart_s=apart_s)
                        took_s = ", ".join(f"{each:.2f}" for each in took(found))
                        print(f"{mode}, {way}: {took_s} s", file=sys.stderr, flush=True)
                        raw.setdefault(f"{way}, {mode}", []).extend(found)
    return {"raw": raw, "took_s": round(time.monotonic() - began), "pool": pool}


def took(found: Sequence[dict[str, Any]], what: str = "took") -> list[float]:
    """Return the seconds of those that succeeded."""
    return [each[what] for each in found if what in each]


def ratios(raw: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, float]:
    """Return by mode how much longer the median is through E2B's SDK than through ours."""
    medians = {name: Figures.of(took(found)).median for name, found in raw.items()}
    return {
        mode: medians[f"e2b, {mode}"] / medians[f"native, {mode}"]
        for mode in MODES
        if medians[f"native, {mode}"]
    }


def wrong(raw: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
    """Return what is not as it has to be: failures, and modes in which E2B's SDK is too slow."""
    failed = {each["failed"] for found in raw.values() for each in found if "failed" in each}
    slow = [
        f"{mode}: through E2B's SDK it takes {ratio:.2f} times as long, more than {AIM}"
        for mode, ratio in ratios(raw).items()
        if ratio > AIM
    ]
    return [*(f"failed: {why}" for why in sorted(failed)), *slow]


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet(
        "ms", "mode", "of it creating", "median", "p95", "p99", "succeeded", "score", "ratio",
    )  # fmt: skip
    raw = results["raw"]
    for mode in MODES:
        for way in WAYS:
            found = raw[f"{way}, {mode}"]
            figures = Figures.of(took(found))
            succeeded = figures.count / len(found)
            ratio = ratios(raw).get(mode, 0.0) if way == "e2b" else 1.0
            created = took(found, "created")
            shown.add_row(
                "E2B's SDK" if way == "e2b" else "our SDK", mode,
                f"{1000 * statistics.median(created):.1f}" if created else "",
                str(figures.median), str(figures.p95), str(figures.p99), f"{succeeded:.0%}",
                str(score(figures, succeeded)), f"{ratio:.2f}",
            )  # fmt: skip
    shown.note(
        f"From the create call to the result of `node -v`, template `{TEMPLATE}`, "
        f"{results['pool']} sandboxes started ahead. Ratio of the medians: "
        f"at most {AIM}, or this benchmark fails."
    )
    for each in wrong(raw):
        shown.note(f"{each[:1].upper()}{each[1:]}.")
    return shown


def main() -> int:
    """Measure and print; 1 if anything failed, or E2B's SDK is too slow."""
    given = arguments(__doc__, rounds=100, pool=100)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(given.rounds, given.pool))
    publish(given.json, results, sheet(results))
    return int(bool(wrong(results["raw"])))


if __name__ == "__main__":
    sys.exit(main())
