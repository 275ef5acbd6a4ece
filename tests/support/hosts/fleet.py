"""A deployment of several hosts: an API beside the shared services, and nodes on machines.

Nodes join as an operator lets them: by `runner nodes invite`, `admit` and `join`.
"""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
from anyio.from_thread import BlockingPortal, start_blocking_portal
from psycopg.rows import dict_row
from pydantic import SecretStr

from runner.base.health import problems
from runner.base.settings import Settings
from runner.base.signing import Signer, TrustedKeys
from runner.door.identity import DoorRole, certify, make_authority
from runner.embedded.stack import Child
from runner.quotas.sizes import load_sizes
from runner.store.db import Database
from runner.tenants.tenancy import create_key, create_operator
from runner.words.principal import Role, Tier
from tests.support.deployment import WIDE, bearing, eventually
from tests.support.hosts import daemons
from tests.support.hosts.engine import SharedEngine, shared_engine
from tests.support.hosts.images import ImageStore
from tests.support.hosts.machines import ADDRESS, Machine, machine, switch
from tests.support.hosts.releases import ROOT, VERSION

NODES = "/operator/v1/nodes"
PORT = 8080
ADMISSION = f"{ADDRESS}:7444"
DOOR_PORT = 7443
LEASE_S = 8.0
SETTINGS: Mapping[str, Any] = {
    "lease_s": LEASE_S, "reconcile_s": 0.5, "slots": 4, "sandboxes": 16, "drain_s": 2.0,
    "pool": 0, "pool_max": 0, "audit_checkpoint_s": 1.0, "rate_limits": WIDE,
    "patience": 3, "log_level": "info", "images": ("python",),
}  # fmt: skip
"""What API and nodes have in common, so that a node is missed soon."""
_UIDS_EACH = 1000


@dataclass
class FleetNode:
    """A machine with a Docker daemon and a worker."""

    machine: Machine
    settings: Settings
    store: ImageStore
    tree: Path | None = None
    """Another state of the code for its worker to run, as in an upgrade."""
    _worker: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def name(self) -> str:
        """The node's name in the deployment."""
        return self.settings.node_id

    @property
    def worker_pid(self) -> int:
        """Its worker's process, as this machine numbers it."""
        assert self._worker is not None
        return self._worker.pid

    @property
    def version(self) -> str:
        """The version of the code that its worker runs."""
        own = (self.tree or ROOT) / "runner" / "__init__.py"
        return str(VERSION.findall(own.read_text())[0]).split('"')[1]

    @property
    def log(self) -> Path:
        """What its worker has written."""
        return self.machine.disk / "worker.log"

    def start(self) -> None:
        """Start the worker, and wait until it works."""
        written = _read(self.settings.state_dir / "node.env")
        own = {"PYTHONPATH": str(self.tree)} if self.tree else {}
        self._worker = self.machine.spawn(
            [sys.executable, "-m", "runner", "worker"], {**_plain(), **written, **own}, self.log
        )
        eventually(self._works)

    def stop(self) -> None:
        """End the worker as an operator does."""
        if self._worker is not None and self._worker.poll() is None:
            self._worker.send_signal(signal.SIGTERM)
            assert self._worker.wait(60) == 0, self.last_words()
        self._worker = None

    def power_off(self) -> None:
        """Take the machine's power away."""
        self.machine.power_off()
        self._worker = None

    def power_on(self) -> None:
        """Start machine, daemon and worker again."""
        self.machine.power_on()
        daemons.start(self.machine, self.store)
        self.start()

    def containers(self) -> int:
        """Return how many containers its daemon has, running or not."""
        with daemons.client(self.settings.docker_url) as asked:
            return len(asked.containers(all=True))

    def last_words(self) -> str:
        """Return the end of its worker's log."""
        return self.log.read_text("utf-8", "replace")[-3000:] if self.log.exists() else ""

    def _works(self) -> bool:
        assert self._worker is not None
        assert self._worker.poll() is None, self.last_words()
        return not problems(self.settings.run_dir)


@dataclass
class Fleet:
    """A deployment of several hosts, and access to every part of it."""

    engine: SharedEngine
    api: Child
    api_settings: Settings
    authority: Path
    store: ImageStore
    portal: BlockingPortal
    open_: ExitStack
    nodes: list[FleetNode] = field(default_factory=list)
    _joined: int = 0

    @property
    def url(self) -> str:
        """The address of the API, for clients at the switch."""
        return f"http://127.0.0.1:{PORT}"

    def join(self, slots: int | None = None) -> FleetNode:
        """Let one more host join, by a token, with its own Docker daemon; return its node."""
        number = self._joined = self._joined + 1
        name = f"node-{number}"
        disk = self.engine.folder / name
        disk.mkdir(0o711)
        host = self.open_.enter_context(machine(name, number + 10, disk))
        own = {
            "RUNNER_DOCKER_URL": daemons.address(host),
            "RUNNER_SANDBOX_UIDS": f"{70_000 + number * _UIDS_EACH}:{_UIDS_EACH}",
        }
        if slots is not None:
            own["RUNNER_SLOTS"] = str(slots)
        self._admit(host, name, own)
        with (disk / "state" / "node.env").open("a") as kept:
            kept.writelines(f"{key}='{value}'\n" for key, value in own.items())
        given = self.api_settings.model_copy(
            update={"node": name, "state_dir": disk / "state", "docker_url": daemons.address(host)}
        )
        node = FleetNode(host, given, self.store)
        self._trusted(node)
        daemons.start(host, self.store)
        node.start()
        self.nodes.append(node)
        return node

    def leave(self, node: FleetNode) -> None:
        """Turn the power of a host off that is no part of the deployment any more."""
        self.nodes.remove(node)
        node.power_off()

    def key(self, tenant: str, **terms: Any) -> str:
        """Return a new key of a tenant, which is made if it does not exist."""
        token: str = self.portal.call(self.new_key, tenant, terms)
        return token

    def http(self, tenant: str, **terms: Any) -> httpx.Client:
        """Return a plain connection with a new key, closed with the deployment."""
        return self.open_.enter_context(bearing(self.url, self.key(tenant, **terms)))

    def operator(self) -> httpx.Client:
        """Return a connection with a new operator's key, closed with the deployment."""
        return self.open_.enter_context(bearing(self.url, self.portal.call(self._operator)))

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Return what a database superuser sees, whom row-level security does not restrict."""
        with psycopg.connect(
            self.engine.superuser_url, row_factory=dict_row, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def states(self, operator: httpx.Client) -> dict[str, str]:
        """Return each node's state."""
        items = operator.get(NODES).json()["items"]
        return {each["node"]: each["state"] for each in items}

    def all_ready(self, operator: httpx.Client) -> None:
        """Wait until each node is ready."""
        wanted = {each.name: "ready" for each in self.nodes}
        eventually(lambda: self.states(operator) == wanted)

    def command(self, *words: str, process: str = "owner") -> "subprocess.CompletedProcess[str]":
        """Run a command of ours with the operator's settings, at the switch."""
        return subprocess.run(
            [sys.executable, "-m", "runner", *words],
            env={**_plain(), **self.engine.settings_of(process), "COLUMNS": "80"},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    async def new_key(self, tenant: str, terms: Mapping[str, Any]) -> str:
        """Return a new key of a tenant with the highest limits, unless its terms are others."""
        sizes = load_sizes(self.api_settings.profiles_path)
        async with Database(self._owner(), max_size=1) as owner:
            made = await create_key(
                owner, tenant=tenant, role=Role.OWNER, name="test",
                **{"tier": Tier.ENTERPRISE, "max_limits": sizes["large"], **terms},
            )  # fmt: skip
        return made.token

    async def _operator(self) -> str:
        async with Database(self._owner(), max_size=1) as owner:
            return await create_operator(owner, "test", None)

    def _owner(self) -> SecretStr:
        return SecretStr(self.engine.settings_of("owner")["RUNNER_DATABASE_OWNER_URL"])

    def _admit(self, host: Machine, name: str, own: Mapping[str, str]) -> None:
        """Let a host join as `docs/operations/nodes.md` says."""
        invited = self.command("nodes", "invite", name, "--authority", str(self.authority))
        assert invited.returncode == 0, invited.stderr
        joined = host.run(
            [sys.executable, "-m", "runner", "nodes", "join", ADMISSION, "-", "--door",
             f"{host.address}:{DOOR_PORT}"],
            {**_plain(), "RUNNER_STATE_DIR": str(host.disk / "state"), **own},
            invited.stdout,
        )  # fmt: skip
        assert joined.returncode == 0, joined.stderr

    def _trusted(self, node: FleetNode) -> None:
        """Exchange public keys between all hosts."""
        mine = Signer.open(node.settings.state_dir)
        others = [self.api_settings.state_dir, *(each.settings.state_dir for each in self.nodes)]
        for other in others:
            for key in mine.public_keys:
                TrustedKeys(other).add(key.pem)
            for key in TrustedKeys(other).read():
                TrustedKeys(node.settings.state_dir).add(key.pem)


@contextmanager
def fleet(folder: Path, docker_url: str, **settings: Any) -> Iterator[Fleet]:
    """Run the services, an API and an admission of hosts inside the context; no node yet.

    This thread is at the switch meanwhile. Nothing is left of it afterwards.
    """
    with ExitStack() as stack:
        store = daemons.image_store(docker_url, "python", folder / "image")
        stack.enter_context(switch())
        engine = stack.enter_context(shared_engine(folder))
        make_authority(folder / "doors")
        shared = Settings().model_copy(
            update={**SETTINGS, "state_dir": folder / "state", "port": PORT, **settings,
                    **_secret(engine.bucket)}
        )  # fmt: skip
        certify(folder / "doors", shared.door_certificates, DoorRole.API, "api-1", _DAY)
        api = Child("api", _of_api(engine, shared), folder / "api.log", stop_after_s=60)
        portal = stack.enter_context(start_blocking_portal())
        made = Fleet(engine, api, shared, folder / "doors", store, portal, stack)
        stack.callback(lambda: asyncio.run(api.stop()))
        api.start()
        eventually(lambda: _serves(made))
        stack.enter_context(_admission(made, _for_each(engine, shared)))
        with ExitStack() as open_:
            made.open_ = open_
            yield made
            _end_sandboxes(made)
            for node in made.nodes:
                node.stop()


def _end_sandboxes(made: Fleet) -> None:
    living = made.sql(
        "SELECT s.sandbox_id, t.name FROM sandboxes s JOIN tenants t USING (tenant_id) "
        "WHERE s.state <> 'ended'"
    )
    for each in living:
        with bearing(made.url, made.key(each["name"])) as client:
            client.delete(f"/v1/sandboxes/{each['sandbox_id']}")


def _of_api(engine: SharedEngine, shared: Settings) -> dict[str, str]:
    owner = engine.settings_of("owner")
    return {
        **_plain(),
        **shared.as_environment(),
        **engine.settings_of("api"),
        "RUNNER_DATABASE_OPERATOR_URL": owner["RUNNER_DATABASE_OPERATOR_URL"],
        "RUNNER_STATE_DIR": str(shared.state_dir),
    }


def _for_each(engine: SharedEngine, shared: Settings) -> Path:
    """Write the settings that all nodes share, as an operator does once."""
    own = {
        "RUNNER_NODE", "RUNNER_STATE_DIR", "RUNNER_DOOR_ADDRESS", "RUNNER_DOCKER_URL",
        "RUNNER_SANDBOX_UIDS", "RUNNER_PORT",
    }  # fmt: skip
    settings = {**shared.as_environment(), **engine.settings_of("worker")}
    file = engine.folder / "nodes.env"
    file.write_text(
        "".join(f"{name}={shlex.quote(v)}\n" for name, v in settings.items() if name not in own)
    )
    return file


@contextmanager
def _admission(made: Fleet, give: Path) -> Iterator[None]:
    log = made.engine.folder / "admit.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner", "nodes", "admit", "--authority", made.authority,
             "--listen", ADMISSION, "--give", give],
            env={**_plain(), **made.engine.settings_of("owner")}, stdout=written, stderr=written,
        )  # fmt: skip
    try:
        eventually(lambda: f"hosts join at {ADMISSION}" in log.read_text())
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0, log.read_text()


def _serves(made: Fleet) -> bool:
    assert made.api.running(), made.api.last_words()
    try:
        return httpx.get(f"{made.url}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False


def _secret(settings: Mapping[str, str]) -> dict[str, Any]:
    return {k: SecretStr(v) if k.endswith("_key") else v for k, v in settings.items()}


def _read(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in shlex.split(file.read_text()))


def _plain() -> dict[str, str]:
    """Return the environment without settings of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RUNNER_")}


_DAY = timedelta(days=1)
