"""Three hosts of one deployment while they fail, are drained, added and upgraded, under load.

    python -m benchmarks.hosts --rounds 3 --events power,cable --older HEAD~20

Each host has a network, processes and a Docker daemon of its own; PostgreSQL and Redis take only
TLS and logins; objects are in a bucket (`tests/support/hosts`). Clients submit executions and
repeat with the same idempotency key until they get an answer. After each event, everything that
still should is asked for. After all, the invariants are checked: each accepted execution has ended
exactly once and its program ran once, unless it asked for more; the ledger adds up; each audit log,
checkpoint and receipt holds; no daemon has a container left. Exits with 1 if one is broken.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.attacks import HOST, Book
from benchmarks.chaos_load import Executions
from benchmarks.harness import Figures, Sheet, machine, publish
from benchmarks.hosts_events import EVENTS, QUIET, Event, Scene
from benchmarks.invariants import Visits, broken, unproven
from benchmarks.stress import with_ceiling
from runner.base import telemetry
from runner.base.settings import Settings
from tests.support.deployment import build_image, state_folder
from tests.support.hosts.fleet import Fleet, FleetNode, fleet
from tests.support.hosts.machines import ADDRESS
from tests.support.hosts.releases import of_commit, renamed

HOSTS = 3
VISITED = 9090
"""The port of the server that counts what programs do."""
TENANT = "load"


@dataclass
class Outlived:
    """What one kind of event did, in all of its rounds."""

    name: str
    rounds: int = 0
    seconds: list[float] = field(default_factory=list)
    """How long each took, until everything worked again."""
    executions: list[float] = field(default_factory=list)
    """Seconds of one execution afterwards."""


@dataclass
class Told:
    """What became of a deployment."""

    events: list[Outlived]
    accepted: int
    visited: int
    saw: dict[str, int]
    wrong: list[str]


@contextmanager
def three_hosts(folder: Path, docker_url: str, hosts: int = HOSTS) -> Iterator[Fleet]:
    """Run a deployment of hosts whose programs may visit the server that counts."""
    ceiling = with_ceiling(Settings().model_copy(update={"state_dir": folder}), VISITED)
    with fleet(
        folder, docker_url, profiles_dir=ceiling, egress_hosts={HOST: ADDRESS},
        egress_trusted_networks=(f"{ADDRESS}/32",),
    ) as made:  # fmt: skip
        for _ in range(hosts):
            made.join()
        yield made


@dataclass
class Load:
    """Executions that go on while something happens."""

    book: Book
    visits: Visits
    executions: Executions


@contextmanager
def under_load(made: Fleet) -> Iterator[Load]:
    """Let clients submit inside the context; all they submitted is accepted when it ends."""
    book = Book()
    visiting = made.portal.wrap_async_context_manager(Visits.counted(ADDRESS, VISITED))
    with visiting as visits:
        key = made.key(TENANT, reuse=False)
        executions = Executions(int(made.url.rpartition(":")[2]), key, VISITED, book)
        running = made.portal.start_task_soon(executions.run)
        try:
            yield Load(book, visits, executions)
        finally:
            made.portal.call(executions.over.set)
            running.result()


def outlive(made: Fleet, events: Sequence[Event], rounds: int, release: Path) -> Told:
    """Let each event happen this often under load; return what became of the deployment.

    `release` is the code of another release, to which hosts are upgraded.
    """
    told = [Outlived(event.name) for event in events]
    operator = made.operator()
    made.all_ready(operator)
    scene = Scene(made, operator, made.http(QUIET), release)
    with under_load(made) as load:
        for _ in range(rounds):
            for event, each in zip(events, told, strict=True):
                _happened(event, scene, each)
    url, settings = made.engine.superuser_url, made.api_settings
    wrong = [
        *scene.wrong,
        *made.portal.call(broken, url, settings, load.book),
        *load.visits.unasked(load.book),
        *made.portal.call(unproven, url, settings),
        *(f"{count} x {what}" for what, count in load.book.wrong.most_common()),
    ]
    wrong += [
        f"{node.name} has {count} containers left" for node, count in _left(made.nodes) if count
    ]
    saw = {f"{status}": n for (_, status), n in sorted(load.book.answers.items())}
    saw["no answer"] = load.book.done["no answer"]
    return Told(told, len({*load.book.accepted}), len(load.visits.paths), saw, wrong)


def _happened(event: Event, scene: Scene, told: Outlived) -> None:
    began = time.monotonic()
    event.happen(scene)
    scene.made.all_ready(scene.operator)
    told.seconds.append(time.monotonic() - began)
    told.executions.append(scene.one_execution())
    told.rounds += 1
    say(f"{event.name}: {told.seconds[-1]:.1f} s, then an execution in {told.executions[-1]:.2f} s")


def _left(nodes: Sequence[FleetNode]) -> Iterator[tuple[FleetNode, int]]:
    """Yield each node with how many containers it has, once it may have removed them."""
    until = time.monotonic() + 60
    for node in nodes:
        while (count := node.containers()) and time.monotonic() < until:
            time.sleep(0.5)
        yield node, count


def sheet(told: Told) -> Sheet:
    """Return what became of the hosts as a table."""
    made = Sheet("event", "times", "s: median, most", "an execution afterwards, s: median, most")
    for each in told.events:
        made.add_row(each.name, str(each.rounds), _seconds(each.seconds), _seconds(each.executions))
    made.note(f"{told.accepted} executions accepted, {told.visited} of their programs visited.")
    made.note(f"Clients saw: {', '.join(f'{n} x {what}' for what, n in told.saw.items())}.")
    for what in told.wrong:
        made.note(f"BROKEN: {what}")
    return made


def _seconds(taken: Sequence[float]) -> str:
    figures = Figures.of(taken)
    return f"{figures.median / 1000:.2f}, {figures.most / 1000:.2f}"


def say(text: str) -> None:
    """Print for whoever watches."""
    print(f"hosts: {datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def chosen(names: str) -> list[Event]:
    """Return the events of these names. Raises ValueError for a name that there is not."""
    known = {event.name: event for event in EVENTS}
    return [known[name] for name in names.split(",")]


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each event happens")
    parser.add_argument("--events", type=chosen, default=[*EVENTS], help="names: power,cable")
    parser.add_argument("--older", help="an earlier commit to upgrade from, and back to")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    telemetry.configure("error", json=False)
    build_image()
    with state_folder() as folder, three_hosts(folder, Settings().docker_url) as made:
        other = folder / "other-release"
        release = of_commit(given.older, other) if given.older else renamed("0.0.9", other)
        told = outlive(made, given.events, given.rounds, release)
    publish(given.json, {**asdict(told), "machine": machine()}, sheet(told))
    return 1 if told.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
