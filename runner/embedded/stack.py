"""The whole product on one host: embedded services, and API and worker as child processes.

The children are the same `runner api` and `runner worker` as in production, with the same
variables; only PostgreSQL and Redis are private to this process. `runner dev`, the demo, and the
tests that kill parts of the product use it.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, TypeAlias

import httpx
from pydantic import SecretStr

from runner.base import health
from runner.base.listening import listen, url
from runner.base.settings import Settings
from runner.embedded import process
from runner.embedded.hold import held
from runner.embedded.process import ServiceProcess
from runner.embedded.services import Services, services
from runner.node.named import read_named
from runner.quotas.sizes import load_sizes
from runner.quotas.tiers import load_tiers
from runner.secrets.keyring import KeyFile
from runner.store.db import Database
from runner.store.migrations import migrate
from runner.tenants.tenancy import publish_tiers
from runner.words.errors import NotReady, SetupError

READY_AFTER_S = 30.0
ANSWER_S = 2.0
STOP_AFTER_S = 40.0
WATCH_EVERY_S = 0.5


class StartedProcess(Protocol):
    """A process that was started; a `subprocess.Popen`, as far as it is used here."""

    pid: int

    def poll(self) -> int | None:
        """Return its exit code if it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended. Raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Signal it unless it has ended."""

    def kill(self) -> None:
        """End it at once."""


Spawn: TypeAlias = Callable[
    [Sequence[str], Mapping[str, str], IO[bytes], tuple[int, ...]], StartedProcess
]
"""Starts a command with an environment, a log and descriptors, in a process group of its own."""


def spawned(
    argv: Sequence[str], env: Mapping[str, str], log: IO[bytes], pass_fds: tuple[int, ...]
) -> StartedProcess:
    """Start a command, which ends with this process."""
    return subprocess.Popen(  # noqa: S603 - our own module, our own arguments
        argv,
        env=env,
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        pass_fds=pass_fds,
        process_group=0,
        preexec_fn=process.die_with_parent,  # noqa: PLW1509 - one prctl, no locks taken
    )


class Child:
    """One of our own processes: `runner api` or `runner worker`."""

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str],
        log: Path,
        *,
        stop_after_s: float,
        spawn: Spawn = spawned,
    ) -> None:
        self._name = name
        self._environment = dict(environment)
        self._log = log
        self._stop_after_s = stop_after_s
        self._spawn = spawn
        self._process: StartedProcess | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises RuntimeError if it does not run."""
        if self._process is None:
            raise RuntimeError(f"{self._name} does not run")
        return self._process.pid

    def start(self, *arguments: str, pass_fds: tuple[int, ...] = ()) -> None:
        """Start it; it ends with this process."""
        argv = [sys.executable, "-m", "runner", self._name, *arguments]
        with self._log.open("ab") as log:
            self._process = self._spawn(argv, self._environment, log, pass_fds)

    def running(self) -> bool:
        """Return whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    async def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int | None:
        """End it and wait; send SIGKILL after a while. Return its exit code."""
        if self._process is None:
            return None
        if self.running():
            self._process.send_signal(with_signal)
        try:
            code = await asyncio.to_thread(self._process.wait, self._stop_after_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = await asyncio.to_thread(self._process.wait)
        self._process = None
        return code

    def last_words(self) -> str:
        """Return the end of its log."""
        return self._log.read_text("utf-8", "replace")[-2000:] if self._log.exists() else ""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running deployment."""

    url: str
    settings: Settings
    services: Services
    api: Child
    worker: Child

    async def ready(self) -> None:
        """Wait until the API answers and the worker reports that it works.

        Raises SetupError with the end of the log of the part that did not start.
        """
        try:
            async with asyncio.timeout(self.settings.patient(READY_AFTER_S)):
                await self._both_ready()
        except TimeoutError:
            words = f"{self.api.last_words()}\n{self.worker.last_words()}".strip()
            raise SetupError(
                f"API and worker were not ready in {self.settings.patient(READY_AFTER_S):g} s; on "
                "a slow or busy host, set RUNNER_PATIENCE to 4. Their logs, in "
                f"{self.settings.state_dir / 'log'}, end with:\n{words or '(nothing)'}"
            ) from None

    async def watch(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set. Raises NotReady as soon as a part ends by itself."""
        parts: dict[str, Child | ServiceProcess] = {
            "`runner api`": self.api,
            "`runner worker`": self.worker,
            "PostgreSQL": self.services.postgres.process,
            "Redis": self.services.redis.process,
        }
        while not stop.is_set():
            for name, part in parts.items():
                if not part.running():
                    raise NotReady(
                        f"{name} has ended by itself, so everything stops; start it again, and "
                        f"look at what its log, in {self.settings.state_dir / 'log'}, ends with:\n"
                        f"{part.last_words() or '(nothing)'}"
                    )
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCH_EVERY_S):
                    await stop.wait()

    async def _both_ready(self) -> None:
        async with httpx.AsyncClient(
            # Its own child, whatever proxy the environment names.
            base_url=self.url,
            timeout=self.settings.patient(ANSWER_S),
            trust_env=False,
        ) as client:
            while True:
                for name, child in (("api", self.api), ("worker", self.worker)):
                    if not child.running():
                        raise SetupError(f"`runner {name}` ended at once:\n{child.last_words()}")
                # The worker would wait for it; whoever has just started this can start Docker, too.
                if why := health.problems(self.settings.run_dir, self.worker.pid).get(
                    health.DOCKER
                ):
                    raise SetupError(f"the worker needs Docker: {why}")
                try:
                    answer = await client.get("/readyz")
                except httpx.TransportError:
                    answer = None
                if answer is not None and answer.is_success and self._worker_works():
                    return
                await asyncio.sleep(0.05)

    def _worker_works(self) -> bool:
        return not health.problems(self.settings.run_dir, self.worker.pid)


@asynccontextmanager
async def stack(
    settings: Settings, *, ephemeral: bool = False, spawn: Spawn = spawned
) -> AsyncIterator[Stack]:
    """Run everything below `settings.state_dir` inside the context; `spawn` starts our processes.

    Raises SetupError if another stack runs in the folder or the address is taken, before it touches
    anything there; and if a setting cannot be used, before it starts anything.
    """
    with held(settings.state_dir) as tell, listen(settings) as listener:
        tell(url(listener))
        read_named(settings)
        async with _stack(settings, listener, ephemeral=ephemeral, spawn=spawn) as running:
            yield running


@asynccontextmanager
async def _stack(
    settings: Settings, listener: socket.socket, *, ephemeral: bool, spawn: Spawn
) -> AsyncIterator[Stack]:
    address = url(listener)
    logs = settings.state_dir / "log"
    with services(settings.state_dir, ephemeral=ephemeral, patience=settings.patience) as running:
        await asyncio.to_thread(
            migrate,
            SecretStr(running.owner_url),
            SecretStr(running.operator_url),
            SecretStr(running.api_url),
            SecretStr(running.worker_url),
        )
        async with Database(SecretStr(running.owner_url), max_size=1) as owner:
            sizes = load_sizes(settings.profiles_path)
            await publish_tiers(owner, load_tiers(settings.profiles_path, sizes))
        keys = {
            f"RUNNER_{name.upper()}": value.get_secret_value()
            for name, value in (
                ("objects_access_key", settings.objects_access_key),
                ("objects_secret_key", settings.objects_secret_key),
                ("traces_headers", settings.traces_headers),
            )
            if value is not None
        }
        if settings.secrets_key is not None:
            keys["RUNNER_SECRETS_KEY"] = settings.secrets_key.get_secret_value()
        elif settings.secrets_key_file is None:
            KeyFile(settings.secrets_key_path).make()
        signs, signs_in = {}, {}
        if settings.audit_webhook_secret is not None:
            signs["RUNNER_AUDIT_WEBHOOK_SECRET"] = settings.audit_webhook_secret.get_secret_value()
        if settings.oidc_client_secret is not None:
            signs_in["RUNNER_OIDC_CLIENT_SECRET"] = settings.oidc_client_secret.get_secret_value()
        common = {
            # Do not pass on our own variables: each child gets only its own login.
            **{k: v for k, v in os.environ.items() if not k.startswith("RUNNER_")},
            **settings.as_environment(),
            **keys,
            "RUNNER_REDIS_URL": running.redis_url,
        }
        logins = {
            "RUNNER_DATABASE_API_URL": running.api_url,
            "RUNNER_DATABASE_OPERATOR_URL": running.operator_url,
        }
        api = Child(
            "api",
            {**common, **logins, **signs_in},
            logs / "api.log",
            stop_after_s=settings.patient(STOP_AFTER_S),
            spawn=spawn,
        )
        worker = Child(
            "worker",
            {**common, **signs, "RUNNER_DATABASE_WORKER_URL": running.worker_url},
            logs / "worker.log",
            stop_after_s=settings.patient(STOP_AFTER_S),
            spawn=spawn,
        )
        try:
            api.start("--fd", str(listener.fileno()), pass_fds=(listener.fileno(),))
            # From here on, only the API holds the socket, which therefore closes with the API.
            listener.close()
            worker.start()
            yield Stack(address, settings, running, api, worker)
        finally:
            await asyncio.gather(api.stop(), worker.stop())
