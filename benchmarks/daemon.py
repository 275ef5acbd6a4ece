"""The speed of the Docker daemon itself with our exact container: single calls, and its rate.

The client is a plain connection that stays open, so that the figures are the daemon's and not
docker-py's. `daemon_rate` is compared with a worker's rate of fresh sandboxes. Usage: `python -m
benchmarks.daemon SECONDS`.
"""

import asyncio
import copy
import json
import secrets
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table

from benchmarks.latency import image_id
from runner.base.seccomp import load_profile
from runner.base.settings import Settings
from runner.quotas.sizes import DEFAULT_SIZE, load_sizes
from runner.sandbox.engine.spec import Host, Placement, container_config
from runner.sandbox.guest.sockets import SUPERVISOR_SOCKET, listen
from runner.sandbox.observe.cgroups import Cgroups

Config = dict[str, Any]
Change = Callable[[Config], object]
LABEL = "runner.benchmark"
PATIENCE_S = 30.0


class Daemon(HTTPConnection):
    """One connection to a daemon's unix socket."""

    def __init__(self, url: str) -> None:
        super().__init__("docker", timeout=2 * PATIENCE_S)
        self._path = url.removeprefix("unix://")

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def ask(
        self, method: str, path: str, body: object = None, *, fine: tuple[int, ...] = ()
    ) -> Any:
        """Return the answer's JSON. Raises RuntimeError if the daemon refuses."""
        payload = b"" if body is None else json.dumps(body).encode()
        self.request(method, path, payload, {"Content-Type": "application/json"})
        answer = self.getresponse()
        content = answer.read()
        if answer.status >= 400 and answer.status not in fine:  # noqa: PLR2004 - HTTP's own
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return json.loads(content) if content else None

    def find(self, what: str, label: str) -> list[Config]:
        """Return the images or containers with a label."""
        filters = quote(json.dumps({"label": [label]}))
        return list(self.ask("GET", f"/{what}/json?all=1&filters={filters}"))

    def create(self, config: Config) -> str:
        """Create a container."""
        name = f"benchmark-{secrets.token_hex(6)}"
        return str(self.ask("POST", f"/containers/create?name={name}", config)["Id"])

    def start(self, container: str) -> None:
        """Start it."""
        self.ask("POST", f"/containers/{container}/start")

    def remove(self, container: str) -> None:
        """Kill and remove it, as `runner.sandbox.engine.docker` does."""
        self.ask("DELETE", f"/containers/{container}?force=true&v=true", fine=(404,))

    def kill(self, container: str) -> None:
        """Kill it."""
        self.ask("POST", f"/containers/{container}/kill")

    def wait(self, container: str) -> None:
        """Wait for its end."""
        self.ask("POST", f"/containers/{container}/wait")

    def inspect(self, container: str) -> Config:
        """Return everything that the daemon says about it."""
        return dict(self.ask("GET", f"/containers/{container}/json"))


class Seat:
    """Our container's configuration, and a listening socket to which its supervisor connects."""

    def __init__(self, url: str, config: Config, folder: Path, listener: socket.socket) -> None:
        self.url = url
        self.config = copy.deepcopy(config)
        self.config["HostConfig"]["Mounts"][0]["Source"] = str(folder)
        self.listener = listener

    def changed(self, change: Change | None) -> Config:
        """Return the configuration with a change."""
        config = copy.deepcopy(self.config)
        if change is not None:
            change(config)
        return config

    def meet(self) -> socket.socket:
        """Return the connection of a supervisor that has reported that it is ready."""
        connection, _ = self.listener.accept()
        connection.settimeout(PATIENCE_S)
        if not connection.recv(1):
            raise RuntimeError("a supervisor hung up before it was ready")
        return connection

    def forget(self) -> None:
        """Hang up on the supervisor that connected."""
        self.listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        with suppress(BlockingIOError):
            while True:
                self.listener.accept()[0].close()
        self.listener.settimeout(PATIENCE_S)


class Ours:
    """The parameters of our container for the daemon at this address."""

    def __init__(self, settings: Settings, image: str, folder: Path) -> None:
        self.url = settings.docker_url
        self._folder = folder
        daemon = Daemon(self.url)
        info = daemon.ask("GET", "/info")
        daemon.close()
        self.runtimes = frozenset(info["Runtimes"])
        self.placement = Placement(image, folder, settings.sandbox_uid_range[0], {LABEL: "1"})
        self.terms = (
            load_sizes(settings.profiles_path)[DEFAULT_SIZE].resources,
            load_profile(settings.profiles_path),
        )
        self.host = Host(int(info["NCPU"]), Cgroups.of(info).parent)
        self.config = container_config(self.placement, *self.terms, self.host)

    @contextmanager
    def seat(self) -> Iterator[Seat]:
        """Yield a new seat: only the supervisor of the started container can connect to it."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        folder.chmod(0o711)
        with listen(folder, SUPERVISOR_SOCKET, backlog=8) as listener:
            listener.settimeout(PATIENCE_S)
            yield Seat(self.url, self.config, folder, listener)


@contextmanager
def ours(settings: Settings, image: str) -> Iterator[Ours]:
    """Yield our configuration with an image; at the end, no container of this benchmark is left."""
    folder = Path(tempfile.mkdtemp(prefix="runner-benchmark-"))
    folder.chmod(0o711)
    try:
        yield Ours(settings, image, folder)
    finally:
        daemon = Daemon(settings.docker_url)
        for each in daemon.find("containers", f"{LABEL}=1"):
            daemon.remove(each["Id"])
        daemon.close()
        shutil.rmtree(folder)


def daemon_rate(
    given: Ours, seconds: float, parallel: int, *, change: Change | None = None, ready: bool = True
) -> float:
    """Return how many of our containers the daemon creates, starts and removes in a second.

    With `ready`, each is removed only after its supervisor has reported, as a worker must wait,
    too.
    """
    ends_at = time.monotonic() + seconds

    def work() -> int:
        done = 0
        with given.seat() as seat, closing(Daemon(given.url)) as daemon:
            config = seat.changed(change)
            while time.monotonic() < ends_at:
                container = daemon.create(config)
                daemon.start(container)
                if ready:
                    seat.meet().close()
                daemon.remove(container)
                seat.forget()
                done += 1
        return done

    started = time.monotonic()
    with ThreadPoolExecutor(parallel) as threads:
        total = sum(each.result() for each in [threads.submit(work) for _ in range(parallel)])
    return total / (time.monotonic() - started)


def _host(**values: object) -> Change:
    return lambda config: config["HostConfig"].update(values)


def _seccomp(rule: Callable[[Config], object] | None) -> Change:
    def change(config: Config) -> None:
        options = config["HostConfig"]["SecurityOpt"]
        kept = [option for option in options if not option.startswith("seccomp=")]
        if rule is None:
            kept.append("seccomp=unconfined")
        else:
            profile = json.loads(options[1].removeprefix("seccomp="))
            rule(profile)
            kept.append("seccomp=" + json.dumps(profile, separators=(",", ":")))
        config["HostConfig"]["SecurityOpt"] = kept

    return change


def _without_comments(profile: Config) -> None:
    for entry in profile["syscalls"]:
        entry.pop("comment", None)


def _fewer_tmpfs(*names: str) -> Change:
    def change(config: Config) -> None:
        for name in names:
            del config["HostConfig"]["Tmpfs"][name]

    return change


CRUN = "runtime crun"
CHANGES: Mapping[str, Change | None] = {
    "ours": None,
    CRUN: _host(Runtime="crun"),
    "no seccomp filter": _seccomp(None),
    "seccomp without comments": _seccomp(_without_comments),
    "no tmpfs at all": _host(Tmpfs={}),
    "no tmpfs on /dev/mqueue": _fewer_tmpfs("/dev/mqueue"),
    "no masked, no read-only paths": _host(MaskedPaths=[], ReadonlyPaths=[]),
    "Docker's masked paths": lambda config: [
        config["HostConfig"].pop(name) for name in ("MaskedPaths", "ReadonlyPaths")
    ],
    "no limits": _host(Memory=0, MemorySwap=0, NanoCpus=0, PidsLimit=None, Ulimits=[]),
    "cgroup namespace of the host": _host(CgroupnsMode="host"),
    "ipc none": _host(IpcMode="none"),
    "writable root": _host(ReadonlyRootfs=False),
    "log driver json-file": _host(LogConfig={"Type": "json-file", "Config": {}}),
    "init": _host(Init=True),
    "networking not disabled": lambda config: config.update(NetworkDisabled=False),
    "no parent cgroup": _host(CgroupParent=""),
}
"""The cost of a field. Most of these changes weaken a sandbox; they only serve to show the cost."""

STEPS = ("create", "start", "ready", "inspect", "remove")


def timed(seat: Seat, daemon: Daemon, config: Config, *, split: bool) -> dict[str, float]:
    """Return the milliseconds of each step of one container's life."""
    marks = [time.perf_counter()]

    def mark() -> None:
        marks.append(time.perf_counter())

    container = daemon.create(config)
    mark()
    daemon.start(container)
    mark()
    connection = seat.meet()
    mark()
    daemon.inspect(container)
    mark()
    if split:
        daemon.kill(container)
        daemon.wait(container)
    daemon.remove(container)
    mark()
    connection.close()
    pairs = zip(STEPS, marks, marks[1:], strict=False)
    return {name: 1000 * (after - before) for name, before, after in pairs}


def bill(given: Ours, rounds: int) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of each step for each change, all changes in turn."""
    changes = {name: c for name, c in CHANGES.items() if name != CRUN or "crun" in given.runtimes}
    seen: dict[str, list[dict[str, float]]] = {}
    with given.seat() as seat, closing(Daemon(given.url)) as daemon:
        for _ in range(rounds):
            for name, change in changes.items():
                ran = timed(seat, daemon, seat.changed(change), split=False)
                seen.setdefault(name, []).append(ran)
            ran = timed(seat, daemon, seat.changed(None), split=True)
            seen.setdefault("kill, wait, remove", []).append(ran)
    return {
        name: {step: round(statistics.median(x[step] for x in runs), 1) for step in STEPS}
        | {"all": round(statistics.median(sum(x.values()) for x in runs), 1)}
        for name, runs in seen.items()
    }


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    console = Console()
    settings = Settings()
    with ours(settings, asyncio.run(image_id(settings))) as given:
        costs = bill(given, max(2, round(4 * seconds)))
        table = Table("one container, ms", *STEPS, "all", "of ours")
        for name, each in costs.items():
            ratio = f"{each['all'] / costs['ours']['all']:.2f}"
            table.add_row(name, *(str(value) for value in each.values()), ratio)
        console.print(table)
        rates = {
            f"{parallel}{'' if ready else ', not until ready'}": round(
                daemon_rate(given, seconds, parallel, ready=ready), 2
            )
            for ready in (True, False)
            for parallel in (1, 2, 4, 8)
        }
        console.print("fresh containers a second by parallelism:", rates)
    print(json.dumps({"ms": costs, "rate": rates}))


if __name__ == "__main__":
    main()
