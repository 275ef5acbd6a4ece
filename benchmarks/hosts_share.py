"""What three hosts do that one does not: throughput, what bounds it, and fairness between tenants.

    python -m benchmarks.hosts_share --seconds 20 --json build/hosts.json

The hosts are those of `benchmarks/hosts.py`. Two questions, each in turns so that ratios hold:

* Throughput of one host and of three with the same slots each. Executions that only wait need no
  processor, so slots bound them. Executions that work share this machine's processors, however
  many hosts they are on: the table says how busy the processors were, and with what.
* Fairness of one host with twelve slots and of three with four each. Three tenants of one tier
  have work waiting; a fourth one submits ten executions, alone and beside the others.
"""

import asyncio
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.attacks import ask
from benchmarks.harness import Caller, Figures, Sheet, arguments, machine, publish
from benchmarks.hosts import say, three_hosts
from runner.base import telemetry
from runner.base.settings import Settings
from runner.words.states import ENDED
from tests.support.deployment import build_image, eventually, state_folder
from tests.support.hosts.fleet import NODES, PORT, Fleet, FleetNode

SLOTS = 4
WIDE_SLOTS = 12
WAITS = {"command": ["sleep", "1"], "size": "nano", "wait_s": 60}
WORKS = {"language": "python", "code": "print(1)", "wait_s": 60}
PARTS: Mapping[str, Sequence[str]] = {
    "PostgreSQL": ("postgres",),
    "Redis": ("redis-server", "valkey-server"),
    "Docker": ("dockerd", "containerd", "containerd-shim-runc-v2", "runc"),
}
LEARNT_S = 2.5
"""How long a node may take to learn that it is drained."""
BACKLOG = 120
QUIET = 10
SHORT = {"command": ["sleep", "0.3"], "size": "nano"}


@dataclass(frozen=True)
class Throughput:
    """One kind of execution, on so many hosts."""

    kind: str
    hosts: int
    per_second: float
    took: Figures
    busy: float
    """The part of all processors' time that was used, from 0 to 1."""
    parts: Mapping[str, float]
    """Processors that each part kept busy."""


@dataclass(frozen=True)
class Fairness:
    """Tenants with work waiting, and one that comes with little, on so many hosts."""

    hosts: int
    shares: Sequence[float]
    """Each tenant's part of what ended while all had work waiting; equal is a third."""
    alone_s: float
    beside_s: float
    """Seconds until the last of ten executions has ended, alone and beside the others."""

    @property
    def index(self) -> float:
        """Jain's index of fairness of the shares: 1 if they are equal, a third if one has all."""
        return sum(self.shares) ** 2 / (len(self.shares) * sum(each**2 for each in self.shares))

    @property
    def ratio(self) -> float:
        """How many times longer the quiet tenant's executions take beside the others."""
        return self.beside_s / self.alone_s


@contextmanager
def only(made: Fleet, nodes: Sequence[FleetNode]) -> Iterator[None]:
    """Let only these nodes take something inside the context."""
    operator = made.operator()
    rest = [each for each in made.nodes if each not in nodes]
    for each in rest:
        operator.post(f"{NODES}/{each.name}/drain").raise_for_status()
    time.sleep(LEARNT_S)
    try:
        yield
    finally:
        for each in rest:
            operator.post(f"{NODES}/{each.name}/resume").raise_for_status()
        time.sleep(LEARNT_S)


class Usage:
    """Processor seconds of each part of the deployment, by the names of its processes."""

    def __init__(self, made: Fleet) -> None:
        self._workers = [each.worker_pid for each in made.nodes]
        self._api = made.api.pid

    def now(self) -> Counter[str]:
        """Return what each part has used up to now."""
        used: Counter[str] = Counter()
        for process in psutil.process_iter(["name", "pid", "cpu_times"]):
            times = process.info["cpu_times"]
            if times is not None:
                part = self._part(process.info["pid"], str(process.info["name"]))
                used[part] += times.user + times.system
        return used

    def _part(self, pid: int, name: str) -> str:
        if pid == self._api:
            return "API"
        if pid in self._workers:
            return "workers"
        if pid == os.getpid():
            return "clients"
        return next((part for part, names in PARTS.items() if name in names), "sandboxes, others")


async def submitted(key: str, body: dict[str, Any], callers: int, seconds: float) -> list[float]:
    """Let so many callers submit one execution after another; return what each took."""
    taken: list[float] = []

    async def one() -> None:
        caller = await Caller(PORT, key).open()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status, answer, took = await caller.submit(body)
            if answer.get("state") != "succeeded":
                raise RuntimeError(f"an execution went wrong: {status} {answer}")
            taken.append(took)
        caller.close()

    await asyncio.gather(*(one() for _ in range(callers)))
    return taken


def throughput(
    made: Fleet, kind: str, body: dict[str, Any], key: str, hosts: int, seconds: float
) -> Throughput:
    """Measure one kind of execution on the first of the small hosts, or on all three."""
    nodes = made.nodes[1 : 1 + hosts]
    with only(made, nodes):
        asyncio.run(submitted(key, body, 2 * SLOTS * hosts, 2.0))
        usage = Usage(made)
        before, machine_before, began = usage.now(), psutil.cpu_times(), time.monotonic()
        taken = asyncio.run(submitted(key, body, 2 * SLOTS * hosts, seconds))
        passed = time.monotonic() - began
        used, machine_after = usage.now() - before, psutil.cpu_times()
    idle = machine_after.idle + machine_after.iowait - machine_before.idle - machine_before.iowait
    return Throughput(
        kind,
        hosts,
        round(len(taken) / passed, 2),
        Figures.of(taken),
        round(1 - idle / passed / (psutil.cpu_count() or 1), 2),
        {part: round(used_s / passed, 2) for part, used_s in used.most_common()},
    )


def fairness(made: Fleet, nodes: Sequence[FleetNode], turn: int) -> Fairness:
    """Measure how these nodes divide themselves between tenants."""
    with only(made, nodes):
        quiet = made.key(f"quiet-{turn}-{len(nodes)}")
        alone_s = asyncio.run(batch(quiet))
        tenants = [f"busy-{turn}-{len(nodes)}-{number}" for number in range(3)]
        keys = [made.key(each) for each in tenants]
        ids = asyncio.run(waiting(keys))
        beside_s = asyncio.run(batch(quiet))
        eventually(lambda: ended(made, ids) >= BACKLOG * 3 // 2, within_s=300)
        shares = shared(made, tenants)
        asyncio.run(cleared(keys, ids))
    return Fairness(len(nodes), shares, round(alone_s, 3), round(beside_s, 3))


async def batch(key: str) -> float:
    """Submit the quiet tenant's executions at once; return the seconds until all have ended."""
    began = time.monotonic()
    callers = [await Caller(PORT, key).open() for _ in range(QUIET)]
    answers = await asyncio.gather(*(each.submit({**SHORT, "wait_s": 60}) for each in callers))
    for caller in callers:
        caller.close()
    if wrong := [answer for _, answer, _ in answers if answer.get("state") != "succeeded"]:
        raise RuntimeError(f"an execution went wrong: {wrong[0]}")
    return time.monotonic() - began


async def waiting(keys: Sequence[str]) -> list[tuple[str, str]]:
    """Let each tenant have work waiting; return its executions with the tenants' keys."""
    ids = []
    for key in keys:
        caller = await Caller(PORT, key).open()
        for _ in range(BACKLOG):
            _, answer, _ = await caller.submit(SHORT)
            ids.append((key, str(answer["id"])))
        caller.close()
    return ids


def ended(made: Fleet, ids: Sequence[tuple[str, str]]) -> int:
    """Return how many of these executions have ended."""
    (row,) = made.sql(
        "SELECT count(*) AS n FROM executions WHERE execution_id = ANY (%s::uuid[]) "
        "AND state = ANY (%s)",
        [each for _, each in ids],
        [state.value for state in ENDED],
    )
    return int(row["n"])


def shared(made: Fleet, tenants: Sequence[str]) -> list[float]:
    """Return each tenant's part of what was claimed while all of them had work waiting."""
    rows = made.sql(
        "SELECT t.name FROM executions e JOIN tenants t USING (tenant_id) "
        "WHERE t.name = ANY (%s) AND e.started_at IS NOT NULL ORDER BY e.started_at LIMIT %s",
        [*tenants],
        BACKLOG,
    )
    counted = Counter(row["name"] for row in rows)
    return [round(counted[each] / len(rows), 3) for each in tenants]


async def cleared(keys: Sequence[str], ids: Sequence[tuple[str, str]]) -> None:
    """Cancel what still waits."""
    for key, id_ in ids:
        await ask(PORT, "POST", f"/v1/executions/{id_}/cancel", key)
    del keys


def run(seconds: float, rounds: int) -> dict[str, Any]:
    """Return all figures."""
    with state_folder() as folder, three_hosts(folder, Settings().docker_url, 0) as made:
        made.join(slots=WIDE_SLOTS)
        for _ in range(3):
            made.join(slots=SLOTS)
        made.all_ready(made.operator())
        kinds: Sequence[tuple[str, dict[str, Any], str]] = (
            ("waits a second", WAITS, made.key("fresh", reuse=False)),
            ("prints, in a fresh sandbox", WORKS, made.key("fresh", reuse=False)),
            ("prints, in a reused sandbox", WORKS, made.key("reusing", reuse=True)),
        )
        found: dict[str, Any] = {"throughput": [], "fairness": []}
        for turn in range(rounds):
            for kind, body, key in kinds:
                for hosts in (1, 3):
                    found["throughput"].append(throughput(made, kind, body, key, hosts, seconds))
                    say(str(found["throughput"][-1]))
            for nodes in (made.nodes[:1], made.nodes[1:]):
                found["fairness"].append(fairness(made, nodes, turn))
                say(str(found["fairness"][-1]))
    return {**found, "machine": machine()}


def sheet(found: Mapping[str, Any]) -> Sheet:
    """Return the figures as a table."""
    made = Sheet("executions", "hosts", "a second", "median, ms", "processors busy", "with")
    middle = _middle(found["throughput"], lambda each: (each.kind, each.hosts))
    for (kind, hosts), each in middle.items():
        parts = ", ".join(f"{part} {used}" for part, used in [*each.parts.items()][:4])
        made.add_row(
            kind, str(hosts), str(each.per_second), str(each.took.median), f"{each.busy:.0%}", parts
        )
    for hosts in (1, 3):
        these = [each for each in found["fairness"] if each.hosts == hosts]
        index = statistics.median(each.index for each in these)
        ratio = statistics.median(each.ratio for each in these)
        shares = "; ".join("/".join(f"{share:.2f}" for share in each.shares) for each in these)
        made.note(
            f"{WIDE_SLOTS} slots on {hosts} host{'s' * (hosts > 1)}: Jain's index {index:.3f} "
            f"(shares {shares}), ten executions take {ratio:.2f} times as long beside the others."
        )
    return made


def _middle(
    rows: Sequence[Throughput], kind: Callable[[Throughput], tuple[str, int]]
) -> dict[tuple[str, int], Throughput]:
    groups: dict[tuple[str, int], list[Throughput]] = {}
    for each in rows:
        groups.setdefault(kind(each), []).append(each)
    return {
        key: sorted(these, key=lambda each: each.per_second)[len(these) // 2]
        for key, these in groups.items()
    }


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, seconds=15.0, rounds=3)
    telemetry.configure("error", json=False)
    build_image()
    found = run(given.seconds, given.rounds)
    publish(given.json, found, sheet(found))


if __name__ == "__main__":
    main()
