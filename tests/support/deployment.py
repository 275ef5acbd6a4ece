"""A whole deployment for tests: embedded services, API and worker as child processes."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

import docker
import httpx
import psycopg
from anyio.from_thread import BlockingPortal, start_blocking_portal
from psycopg.rows import dict_row
from pydantic import SecretStr

from agent_runner import Client, Execution
from runner.base.rates import Rate, RateLimits
from runner.base.settings import Settings
from runner.embedded.services import services
from runner.embedded.stack import Child, Stack, StartedProcess, spawned, stack
from runner.quotas.sizes import load_sizes
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.images import Images
from runner.store.db import Database
from runner.store.migrations import migrate
from runner.tenants.tenancy import create_key, create_operator
from runner.words.principal import Role, Tier
from tests.support.forkserver import ForkServer
from tests.support.sandboxes import BESIDE_OTHERS

PATIENCE_S = Settings().patient(60.0)
DISK = "/var/tmp"  # noqa: S108 - PostgreSQL's data is too large for /tmp, which may be memory
WIDE = RateLimits(**dict.fromkeys(RateLimits.model_fields, Rate(per_minute=60_000, burst=60_000)))
"""Tests send more requests than anybody: all are counted as usual, against wide limits."""
PORTS_DOMAIN = "ports.test"
"""Ports of sandboxes have names below it in a deployment that tests share."""
NO_POOL = {"pool": 0, "pool_max": 0}
"""No sandbox waits: each container belongs to an execution, and a deployment starts and stops
fast."""


@dataclass
class Deployment:
    """A running deployment, and access to every part of it."""

    stack: Stack
    portal: BlockingPortal
    clients: ExitStack
    tenants: dict[str, Client] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The address of the API."""
        return self.stack.url

    @property
    def worker(self) -> Child:
        """The worker's process."""
        return self.stack.worker

    def key(self, tenant: str, role: Role = Role.OWNER, **options: Any) -> str:
        """Return a new key of a tenant, which is made if it does not exist."""
        token: str = self.portal.call(self._key, tenant, role, options)
        return token

    def operator(self) -> httpx.Client:
        """Return a connection with a new operator's key, closed with the deployment."""
        return self.clients.enter_context(bearing(self.url, self.portal.call(self._operator)))

    def http(self, tenant: str, role: Role = Role.OWNER, **options: Any) -> httpx.Client:
        """Return a plain connection with a new key, closed with the deployment."""
        return self.clients.enter_context(bearing(self.url, self.key(tenant, role, **options)))

    def client(self, tenant: str, role: Role = Role.OWNER, **options: Any) -> Client:
        """Return a client with a new key, closed with the deployment; it waits for no rate."""
        key = self.key(tenant, role, **options)
        return self.clients.enter_context(Client(self.url, key, retry_for_s=0))

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Return what a database superuser sees, whom row-level security does not restrict."""
        with psycopg.connect(
            self.stack.services.postgres.url("postgres"), row_factory=dict_row, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def remove_templates(self) -> None:
        """Remove the images that its node has made of templates."""

        async def remove() -> None:
            settings = self.stack.settings
            async with Engine(settings.docker_url, timeout_s=60, threads=1) as engine:
                images = Images(engine, settings.recipes_path)
                for each in await images.templates(settings.node_id):
                    await images.remove_template(each)
                assert await images.templates(settings.node_id) == []

        # A loop of its own, as the test may run in one.
        with start_blocking_portal() as portal:
            portal.call(remove)

    def containers(self) -> list[dict[str, Any]]:
        """Return this deployment's containers, running or not."""
        client = docker.APIClient(self.stack.settings.docker_url, version="auto", timeout=30)
        try:
            label = f"runner.node={self.stack.settings.node_id}"
            found: list[dict[str, Any]] = client.containers(all=True, filters={"label": label})
            return found
        finally:
            client.close()

    def sockets(self) -> list[str]:
        """Return the existing socket folders of sandboxes."""
        return [path.name for path in (self.stack.settings.run_dir / "sandboxes").iterdir()]

    def end_sandboxes(self) -> None:
        """Kill the sandboxes that tests have left living, as their tenants would."""
        living = self.sql(
            "SELECT s.sandbox_id, t.name FROM sandboxes s JOIN tenants t USING (tenant_id) "
            "WHERE s.state <> 'ended'"
        )
        for each in living:
            with bearing(self.url, self.key(each["name"])) as client:
                client.delete(f"/v1/sandboxes/{each['sandbox_id']}")

    def restart_worker(self) -> None:
        """Start the worker again after it has ended."""
        self.stack.worker.start()

    async def _operator(self) -> str:
        async with Database(SecretStr(self.stack.services.owner_url), max_size=1) as owner:
            return await create_operator(owner, "test", None)

    async def _key(self, tenant: str, role: Role, options: dict[str, Any]) -> str:
        settings = self.stack.settings
        async with Database(SecretStr(self.stack.services.owner_url), max_size=1) as owner:
            made = await create_key(
                owner,
                tenant=tenant,
                role=role,
                name="test",
                **{
                    "tier": Tier.ENTERPRISE,
                    "max_limits": load_sizes(settings.profiles_path)["large"],
                    **options,
                },
            )
        return made.token


def bearing(url: str, token: str) -> httpx.Client:
    """Return a plain connection that presents this key."""
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


@contextmanager
def deployment(**settings: Any) -> Iterator[Deployment]:
    """Run a deployment in a folder of its own; check at the end that nothing is left of it."""
    with state_folder() as folder:
        copy_database(folder)
        with deployment_in(folder, **settings) as made:
            yield made


@contextmanager
def deployment_in(folder: Path, **settings: Any) -> Iterator[Deployment]:
    """Run a deployment in this state folder; check at the end that nothing runs any more."""
    with ExitStack() as clients:
        given = Settings(
            **{
                "state_dir": folder,
                "port": 0,
                "drain_s": 2.0,
                "patience": max(Settings().patience, BESIDE_OTHERS),
                "rate_limits": WIDE,
                **settings,
            }
        )
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(stack(given, ephemeral=True, spawn=spawn)) as running,
        ):
            portal.call(running.ready)
            made = Deployment(running, portal, clients)
            yield made
            made.end_sandboxes()
            clients.close()
        made.remove_templates()
        assert made.containers() == []
        assert made.sockets() == []


@cache
def fork_server() -> ForkServer:
    """Return what starts our processes; there is one per process of tests.

    `end_fork_server` ends it.
    """
    return ForkServer()


def spawn(
    argv: Sequence[str], env: Mapping[str, str], log: IO[bytes], pass_fds: tuple[int, ...]
) -> StartedProcess:
    """Start a process of a deployment, in this thread's network."""
    # Only a process that was started anew is measured.
    anew = "coverage" in sys.modules or fork_server().is_elsewhere
    return (spawned if anew else fork_server().spawn)(argv, env, log, pass_fds)


def end_fork_server() -> None:
    """End what starts our processes, if it runs."""
    if fork_server.cache_info().currsize:
        fork_server().close()
        fork_server.cache_clear()


def copy_database(folder: Path, of: Path | None = None) -> None:
    """Give a state folder a database of its own: a copy of one that has the schema, or of `of`."""
    made = folder / "services"
    made.mkdir()
    source = (of or migrated()) / "services" / "postgres"
    # Half of a new database is zeros of its log, which need not be written.
    subprocess.run(["cp", "--archive", "--sparse=always", source, made], check=True)


@cache
def initialised() -> Path:
    """Return a state folder whose database is empty; it is made once per process.

    `forget_databases` removes it.
    """
    folder = new_state_folder()
    with services(folder, ephemeral=True):
        pass
    return folder


@cache
def migrated() -> Path:
    """Return a state folder whose database has the schema; it is made once per process.

    `forget_databases` removes it.
    """
    folder = new_state_folder()
    copy_database(folder, initialised())
    with services(folder, ephemeral=True) as running:
        migrate(SecretStr(running.owner_url))
    return folder


def forget_databases() -> None:
    """Remove the folders that `initialised` and `migrated` made, if they did."""
    for each in (migrated, initialised):
        if each.cache_info().currsize:
            shutil.rmtree(each())
            each.cache_clear()


@contextmanager
def state_folder() -> Iterator[Path]:
    """Yield a folder that the services' user may pass through, and remove it afterwards.

    A database has more than a thousand files: others remove them while the next test begins.
    """
    folder = new_state_folder()
    try:
        yield folder
    finally:
        removals().begin(folder)


class Removals:
    """Removes folders, one after the other, beside the tests."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._begun: list[Future[None]] = []

    def begin(self, folder: Path) -> None:
        """Begin to remove a folder."""
        self._begun.append(self._pool.submit(shutil.rmtree, folder))

    def finish(self) -> None:
        """Return once all are removed. Raises what a removal has raised."""
        self._pool.shutdown()
        for each in self._begun:
            each.result()


@cache
def removals() -> Removals:
    """Return what removes folders; there is one per process of tests.

    `finish_removals` ends it.
    """
    return Removals()


def finish_removals() -> None:
    """Wait until no folder is left to remove."""
    if removals.cache_info().currsize:
        removals().finish()
        removals.cache_clear()


def new_state_folder() -> Path:
    """Make a folder that the services' user may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="runner-test-", dir=DISK))
    folder.chmod(0o711)
    return folder


def build_image(name: str = "python") -> str:
    """Build a sandbox image unless it exists, and return its digest."""

    async def build() -> str:
        settings = Settings()
        async with Engine(
            settings.docker_url, timeout_s=settings.patient(600), threads=2
        ) as engine:
            return (await Images(engine, settings.recipes_path).build(name, settings)).digest

    return asyncio.run(build())


def eventually(holds: Callable[[], Any], *, within_s: float = PATIENCE_S) -> Any:
    """Return what `holds` returns once it is true; fail with its last value after a while."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"still {found!r} after {within_s} s"
        time.sleep(0.05)
    return found


def state_of(client: Client, execution: Execution) -> Callable[[], str]:
    """Return a function that asks for an execution's state."""
    return lambda: client.get(execution.id).state
