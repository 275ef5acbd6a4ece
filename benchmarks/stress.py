"""A quiet tenant's `print(1)` while everybody else attacks and parts of the deployment fail.

    python -m benchmarks.stress --minutes 60

One embedded stack with its default settings, and an S3 server for its objects. First the quiet
tenant runs alone; then attacks (`benchmarks/attacks.py`) and faults (`benchmarks/faults.py`) go on
for the given minutes. Exits with 1 if an invariant (`benchmarks/invariants.py`) is broken: the
quiet tenant's median is 10 times as long as alone; somebody gets a 5xx other than 503 with
`Retry-After`; an accepted execution, artifact or file is lost; an execution finishes twice, or its
program runs twice and had not asked for that; something is left behind.
"""

import asyncio
import json
import multiprocessing
import re
import shutil
import statistics
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from benchmarks.attacks import HOST, Book, Target, ask, attacker
from benchmarks.faults import Far, Parts, one_after_another
from benchmarks.harness import Figures, Sheet, arguments, machine, new_key, publish
from benchmarks.invariants import Visits, broken, left_behind, processes
from runner.base.settings import Settings
from runner.cli.demo import temporary_state
from runner.embedded.stack import Stack, stack
from runner.words.principal import Role, Tier
from runner.words.states import ENDED

QUIET = {
    "language": "python", "code": "print(1)", "wait_s": 60, "on_worker_loss": "retry",
}  # fmt: skip
TIMES = 10.0
EVERY_S = 0.5
ERROR = re.compile(r"^[ |]*([\w.]+(?:Error|Exception|Group|Timeout)\b.*)$", re.MULTILINE)
"""The line of a traceback that names the exception."""


class Quiet:
    """The tenant whose `print(1)` is measured: in this process, which does little else."""

    def __init__(self, port: int, key: str, book: Book) -> None:
        self._port = port
        self._key = key
        self._book = book
        self.seconds: list[float] = []
        self.states: dict[str, int] = {}

    async def run(self, seconds: float) -> list[float]:
        """Run it again and again for this time; return what each run took, including refusals."""
        until = time.monotonic() + seconds
        self.seconds = []
        while time.monotonic() < until:
            began = time.monotonic()
            state = await self._once()
            self.seconds.append(time.monotonic() - began)
            self.states[state] = self.states.get(state, 0) + 1
            await asyncio.sleep(max(0.0, EVERY_S - (time.monotonic() - began)))
        return self.seconds

    async def _once(self) -> str:
        name = {"Idempotency_Key": str(uuid4())}
        found: dict[str, Any] = {}
        while not found:
            found = await self._asked("POST", "/v1/executions", QUIET, name)
        self._book.accepted.append(found["id"])
        while found.get("state") not in ENDED:
            await asyncio.sleep(0.05)
            found = await self._asked("GET", f"/v1/executions/{found['id']}") or found
        return str(found["state"])

    async def _asked(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the answer; after a refusal, wait as long as it asks, and return nothing."""
        try:
            reply = await ask(self._port, method, path, self._key, body, **headers or {})
        except (OSError, EOFError, TimeoutError) as error:
            self._book.wrong[f"quiet: {type(error).__name__}: {error}"] += 1
            await asyncio.sleep(1)
            return {}
        self._book.note("quiet", reply)
        if reply.status in {200, 202}:
            return reply.json()
        await asyncio.sleep(reply.retry_after or 1)
        return {}


async def stressed(
    parts: Parts, visits: Visits, quiet: Quiet, book: Book, seconds: float
) -> list[float]:
    """Return how long the quiet tenant's runs took under attacks and faults."""
    running = parts.stack
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    target = Target(
        port=int(running.url.rpartition(":")[2]),
        redis_url=running.services.redis_url,
        keys={
            **{name: await new_key(running, name) for name in ("viewed", "secrets", "busy")},
            "viewer": await new_key(running, "viewed", role=Role.VIEWER),
        },
        visited=visits.port,
    )
    child = context.Process(target=attacker, args=(target, theirs))
    child.start()
    theirs.close()
    try:
        await _heard(ours)
        say("attacks and faults begin")
        failing = asyncio.create_task(one_after_another(parts, book.done))
        measured = await quiet.run(seconds)
        failing.cancel()
        with suppress(asyncio.CancelledError):
            await failing
        if not running.worker.running():
            running.worker.start()
        say("the attacks end")
        ours.send("over")
        book.add(await _heard(ours))
    finally:
        child.terminate()
        child.join()
        ours.close()
    return measured


async def _heard(link: Connection) -> Any:
    """Return the message of the attacker's process. Raises EOFError if it has ended."""
    return await asyncio.to_thread(link.recv)


async def run(minutes: float) -> tuple[dict[str, Any], Sheet, list[str]]:
    """Return the figures and every invariant that was broken."""
    book = Book()
    with temporary_state(Settings()) as private:
        async with Visits.counted() as visits, Far.between(private) as far:
            settings = far.settings.model_copy(
                update={
                    "port": 0,
                    "log_level": "warning",
                    "profiles_dir": with_ceiling(private, visits.port),
                    "egress_hosts": {HOST: "127.0.0.1"},
                    "egress_trusted_networks": ("127.0.0.0/8",),
                }
            )
            async with stack(settings, ephemeral=True) as running:
                await running.ready()
                key = await new_key(running, "quiet", tier=Tier.PRO, reuse=False)
                quiet = Quiet(int(running.url.rpartition(":")[2]), key, book)
                await quiet.run(3)
                say("the quiet tenant runs alone")
                alone = await quiet.run(max(15.0, min(60.0, minutes * 12)))
                under = await stressed(Parts(running, far), visits, quiet, book, minutes * 60)
                say(f"waiting until all of {len(book.accepted)} accepted executions have ended")
                url = running.services.superuser_url
                wrong = [*await broken(url, settings, book), *visits.unasked(book)]
                sizes = _sizes(running, settings.state_dir)
                metrics = await ask(int(running.url.rpartition(":")[2]), "GET", "/metrics", "")
                sizes["metrics, bytes"] = len(metrics.body)
                failures = _failures(settings.state_dir / "log" / "api.log")
                alive = processes(running)
        wrong += left_behind(private, alive)
    ratio = statistics.median(under) / statistics.median(alone)
    if ratio >= TIMES:
        wrong.append(f"the quiet tenant's median is {ratio:.1f} times that of alone")
    wrong += [f"{count} x {what}" for what, count in book.wrong.most_common()]
    wrong += [
        f"{n} runs of the quiet tenant ended as {state}"
        for state, n in quiet.states.items()
        if state != "succeeded"
    ]
    figures = {
        "alone": Figures.of(alone), "stressed": Figures.of(under), "ratio": round(ratio, 2),
        "answers": {f"{who} {status}": n for (who, status), n in sorted(book.answers.items())},
        "done": dict(book.done), "sizes": sizes, "failures": failures, "broken": wrong,
        "machine": machine(),
    }  # fmt: skip
    return figures, sheet(figures), wrong


def with_ceiling(settings: Settings, port: int) -> Path:
    """Return a copy of the profiles whose egress ceiling permits one port of this host."""
    copy = settings.state_dir / "profiles"
    shutil.copytree(settings.profiles_path, copy)
    (copy / "egress" / "ceiling.toml").write_text(
        f'[[allow]]\nhost = "{HOST}"\nscheme = "http"\nport = {port}\n'
    )
    return copy


def _failures(log: Path) -> dict[str, int]:
    """Return the API's own failures, by the last line of each traceback."""
    found: Counter[str] = Counter()
    for line in log.read_text("utf-8", "replace").splitlines():
        with suppress(ValueError, TypeError):
            told = json.loads(line)
            if named := ERROR.findall(str(told.get("exception", ""))):
                found[named[-1][:200]] += 1
    return dict(found.most_common(10))


def _sizes(running: Stack, folder: Path) -> dict[str, int]:
    """Return the sizes of what strangers could make grow."""
    found = {f"log {path.name}, bytes": path.stat().st_size for path in (folder / "log").iterdir()}
    for name, child in (("api", running.api), ("worker", running.worker)):
        found[f"{name}, resident MiB"] = psutil.Process(child.pid).memory_info().rss // 2**20
    return found


def sheet(figures: dict[str, Any]) -> Sheet:
    """Return the figures as a table."""
    made = Sheet("print(1) of a quiet tenant", "runs", "median ms", "p95 ms", "p99 ms", "most ms")
    for name in ("alone", "stressed"):
        each: Figures = figures[name]
        numbers = (each.count, each.median, each.p95, each.p99, each.most)
        made.add_row(name, *map(str, numbers))
    made.note(f"Ratio of the medians: {figures['ratio']} (must be below {TIMES:g}).")
    for title in ("done", "answers", "sizes", "failures"):
        made.note(f"{title}: " + ", ".join(f"{name} {n}" for name, n in figures[title].items()))
    made.note("Nothing is broken." if not figures["broken"] else "BROKEN:")
    for each in figures["broken"]:
        made.note(f"  {each}")
    return made


def say(text: str) -> None:
    """Print for whoever watches."""
    print(f"stress: {datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run it; return the exit code."""
    given = arguments(__doc__, minutes=60.0)
    figures, shown, wrong = asyncio.run(run(given.minutes))
    publish(given.json, figures, shown)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
