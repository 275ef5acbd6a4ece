"""Sandboxes made and killed through E2B's SDK, by clients that are killed at random.

At the end, what a deployment holds must be what it held at the start: containers, sockets, parts of
the egress proxy, leases and descriptors. Usage: `python -m benchmarks.e2b_kills --sandboxes 1000`.
Beside other work, a client may need more than the 15 s that its sandboxes live: set `--lives`.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks.e2b import environment, interpreter
from benchmarks.harness import DISK, Deployed, Sheet, arguments, deployment, machine, publish
from benchmarks.invariants import processes
from runner.base import telemetry

HOST = "files.example.test"
"""The hosts that each sandbox may reach, so that the egress proxy has a part for it."""
ORDER = b'{"churn": true}\n'
MOST_STEPS = 12
"""How many steps a client may take before it is killed: a sandbox takes it three."""
LATER_S = 0.3
"""It is killed at any moment within this time after its last step."""
POOL = 2
LISTENING = "00010000"
"""The flag of a socket that listens (`__SO_ACCEPTCON`)."""
SPARE = 20
"""How many more descriptors each process may hold: connections that it keeps. One leaked for each
client that was killed would be more."""


@dataclass(frozen=True)
class Terms:
    """The number of sandboxes and of clients at once, and how long a sandbox lives by itself."""

    sandboxes: int
    clients: int = 4
    lives_s: int = 15
    patience_s: float = 300.0
    seed: int = 1


@dataclass(frozen=True)
class Holdings:
    """The contents of a deployment."""

    containers: int
    folders: int
    sockets: int
    processes: int
    living: int
    leases: int
    descriptors: int


@dataclass(frozen=True)
class Survived:
    """The clients' actions, their sandboxes' ends, and everything that is not as it was."""

    terms: Terms
    steps: dict[str, int]
    clients_killed: int
    ends: dict[str, int]
    faults: list[str]
    """The reasons of those that ended, but were neither killed nor at the end of their time."""
    before: Holdings
    after: Holdings
    took_s: float
    wrong: list[str]


def held(deployed: Deployed) -> Holdings:
    """Return what a deployment holds now."""
    folder = deployed.settings.run_dir / "sandboxes"
    own = processes(deployed.stack)
    node = [psutil.Process(deployed.stack.worker.pid), psutil.Process(deployed.stack.api.pid)]
    node += [child for each in node for child in each.children(recursive=True)]
    return Holdings(
        containers=deployed.sandboxes(),
        folders=len(list(folder.iterdir())),
        sockets=listening(node),
        # PostgreSQL has one for each connection: those are counted as descriptors of others.
        processes=sum(each.name() != "postgres" for each in own if each.is_running()),
        living=rows(deployed, "SELECT count(*) FROM sandboxes WHERE state <> 'ended'")[0][0],
        leases=rows(deployed, "SELECT count(*) FROM sandboxes WHERE lease_until IS NOT NULL")[0][0],
        descriptors=sum(each.num_fds() for each in node),
    )


def listening(holders: Sequence[psutil.Process]) -> int:
    """Return on how many unix sockets these processes listen."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    listens = {f"socket:[{words[6]}]" for words in lines if words[3] == LISTENING}
    return len(listens & {link for each in holders for link in open_files(each)})


def open_files(holder: psutil.Process) -> Iterator[str]:
    """Yield what a process has open now, as proc_pid_fd(5) names it."""
    for fd in Path(f"/proc/{holder.pid}/fd").iterdir():
        # It may be closed by now.
        with suppress(FileNotFoundError):
            yield str(fd.readlink())


def differences(before: Holdings, after: Holdings) -> list[str]:
    """Return what is there now that was not there at the start, or the other way round."""
    was, is_ = asdict(before), asdict(after)
    more = {"descriptors": SPARE}
    return [
        f"{is_[name]} {name}, {was[name]} at the start"
        for name in was
        if not (is_[name] == was[name] or (0 < is_[name] - was[name] <= more.get(name, 0))
                or (name in more and is_[name] < was[name]))
    ]  # fmt: skip


def rows(deployed: Deployed, statement: str) -> list[tuple[Any, ...]]:
    """Return what a statement finds, as a superuser."""
    url = deployed.stack.services.postgres.url("postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


class Crowd:
    """Clients, each in a process, and how often they did what."""

    def __init__(self, python: Path, deployed: Deployed, terms: Terms) -> None:
        self.steps: Counter[str] = Counter()
        self.killed = 0
        self.broken = 0
        """How many ended by themselves: none should."""
        self._command = (str(python), "-P", str(Path(__file__).with_name("e2b_client.py")))
        self._environment = {
            **environment(deployed), "CHURN_LIVES_S": str(terms.lives_s), "CHURN_HOST": HOST,
        }  # fmt: skip
        self._wanted = terms.sandboxes
        # No secret depends on it.
        self._random = random.Random(terms.seed)  # noqa: S311

    async def work(self) -> None:
        """Run clients one after the other until enough sandboxes were made."""
        while self.steps["made"] < self._wanted and not self.broken:
            await self.one(self._random.randint(1, MOST_STEPS))

    async def one(self, steps: int) -> None:
        """Run a client, and kill it soon after so many steps."""
        process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the client has no pipes")
            process.stdin.write(ORDER)
            for _ in range(steps):
                if not (line := await process.stdout.readline()):
                    self.broken += 1
                    return
                self.steps[line.decode().strip()] += 1
            await asyncio.sleep(self._random.uniform(0, LATER_S))
        finally:
            if process.returncode is None:
                process.kill()
                self.killed += 1
            await process.wait()


async def back(deployed: Deployed, before: Holdings, patience_s: float) -> Holdings:
    """Wait until all is as it was; return what is held then, or when patience ends."""
    until = time.monotonic() + patience_s
    while differences(before, after := held(deployed)) and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    return after


async def survive(terms: Terms, python: Path) -> Survived:
    """Let a crowd work on a deployment of its own, and compare what it holds."""
    began = time.monotonic()
    async with deployment(images=("base",), pool=POOL, pool_max=POOL) as deployed:
        warm = Crowd(python, deployed, Terms(1, lives_s=terms.lives_s))
        await warm.one(3 * MOST_STEPS // 4)
        # Those that the first client has left end by themselves.
        await settled(deployed, terms.patience_s)
        before = held(deployed)
        print(f"kills: at the start {before}", file=sys.stderr, flush=True)
        crowd = Crowd(python, deployed, terms)
        await asyncio.gather(*(crowd.work() for _ in range(terms.clients)))
        print(f"kills: {dict(crowd.steps)}, now {held(deployed)}", file=sys.stderr, flush=True)
        after = await back(deployed, before, terms.patience_s)
        ends = rows(deployed, "SELECT reason, count(*) FROM sandboxes GROUP BY 1")
        unusual = "SELECT DISTINCT detail FROM sandboxes WHERE reason NOT IN ('killed', 'expired')"
        faults = [str(detail) for (detail,) in rows(deployed, unusual)]
        wrong = differences(before, after)
        wrong += [f"{crowd.broken} clients failed: see above"] if crowd.broken else []
    return Survived(
        terms, dict(crowd.steps), crowd.killed, {str(why): n for why, n in ends}, faults,
        before, after, round(time.monotonic() - began, 1), wrong,
    )  # fmt: skip


async def settled(deployed: Deployed, patience_s: float) -> None:
    """Wait until no sandbox lives and the pool is full. Raises TimeoutError."""
    async with asyncio.timeout(patience_s):
        while (now := held(deployed)).living or now.containers != POOL:  # noqa: ASYNC110
            await asyncio.sleep(0.5)


async def run(terms: Terms, python: Path | None = None) -> Survived:
    """Run the whole, with an interpreter that has E2B's SDK, made if there is none."""
    with tempfile.TemporaryDirectory(dir=DISK) as folder:
        if python is None:
            python = await asyncio.to_thread(interpreter, Path(folder))
        return await survive(terms, python)


def sheet(survived: Survived) -> Sheet:
    """Return what happened as text for people."""
    made = Sheet("what", "at the start", "at the end")
    was, is_ = asdict(survived.before), asdict(survived.after)
    for name, value in was.items():
        made.add_row(name, str(value), str(is_[name]))
    made.note(
        f"{survived.steps.get('made', 0)} sandboxes made by {survived.clients_killed} clients that "
        f"were killed; the sandboxes ended so: {survived.ends}; {survived.took_s} s."
    )
    for each in survived.faults:
        made.note(f"One ended otherwise: {each}")
    made.note("Nothing is broken." if not survived.wrong else "BROKEN:")
    for each in survived.wrong:
        made.note(f"  {each}")
    return made


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    given = arguments(__doc__, sandboxes=1000, clients=4, lives=15, seed=1)
    telemetry.configure("error", json=False)
    terms = Terms(given.sandboxes, given.clients, lives_s=given.lives, seed=given.seed)
    survived = asyncio.run(run(terms))
    publish(given.json, {**asdict(survived), "machine": machine()}, sheet(survived))
    return 1 if survived.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
