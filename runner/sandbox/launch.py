"""From an order to a started sandbox: folder, user and container, connection, in this order.

The folder holds one listening socket. It is mounted into this container alone, takes one
connection before any program of a tenant runs, and is unlinked then: nobody can connect later.
"""

import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from runner.base.seccomp import load_profile
from runner.base.settings import Settings
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.images import Images
from runner.sandbox.engine.maker import Configure, Maker
from runner.sandbox.engine.spec import Host, container_config
from runner.sandbox.engine.users import Users
from runner.sandbox.guest.channel import Channel
from runner.sandbox.guest.container import Container
from runner.sandbox.guest.meeting import meet
from runner.sandbox.guest.patience import Patience
from runner.sandbox.guest.sandbox import Identity, Sandbox
from runner.sandbox.guest.sockets import SUPERVISOR_SOCKET, listen
from runner.sandbox.observe.cgroups import Cgroups
from runner.sandbox.observe.guards import Guards
from runner.words.errors import LaunchFailed, RunnerError
from runner.words.sandbox import SandboxSpec

NODE_LABEL = "runner.node"
INSTANCE_LABEL = "runner.instance"
SANDBOX_LABEL = "runner.sandbox"

_log = structlog.get_logger("runner.worker")

__all__ = ["Launcher", "Sandbox", "SandboxOrder", "Site"]


@dataclass(frozen=True, slots=True)
class SandboxOrder:
    """What sandbox is wanted; tenant, execution and attempt become its container's labels.

    One that is started ahead is nobody's: the audit log tells whose it became.
    """

    spec: SandboxSpec
    tenant: str = ""
    execution: str = ""
    attempt: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """Where sandboxes are started: on which node, by which worker of it, and in which folder."""

    node: str
    instance: str
    folder: Path

    def labels(self, order: SandboxOrder, sandbox_id: str) -> dict[str, str]:
        """Return what a container tells of itself: by this a later worker finds it."""
        return {
            NODE_LABEL: self.node,
            INSTANCE_LABEL: self.instance,
            SANDBOX_LABEL: sandbox_id,
            "runner.tenant": order.tenant,
            "runner.execution": order.execution,
            "runner.attempt": order.attempt,
        }


class Launcher:
    """Starts sandboxes on one Docker daemon for one worker."""

    def __init__(
        self,
        *,
        site: Site,
        engine: Engine,
        maker: Maker,
        guards: Guards,
        waits: Patience,
        report_s: float,
    ) -> None:
        """Take parts that run already. A supervisor has `report_s` seconds to say it is ready."""
        self.site = site
        self.engine = engine
        self.maker = maker
        self.guards = guards
        self.report_s = report_s
        self.live: set[str] = set()
        self._patience = waits

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        *,
        node: str,
        instance: str,
        configure: Configure = container_config,
    ) -> AsyncIterator["Launcher"]:
        """Connect to Docker and make ready all that every sandbox needs.

        Raises SetupError when the seccomp profile does not compile or limits cannot be enforced,
        DockerUnavailable when the daemon does not answer.
        """
        profile = load_profile(settings.profiles_path)
        folder = settings.run_dir / "sandboxes"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        async with Engine(
            settings.docker_url,
            timeout_s=settings.patient(settings.docker_timeout_s),
            threads=settings.slots + 4,
        ) as engine:
            info = (await engine.info())["info"]
            cgroups = Cgroups.of(info)
            with Guards.standing(cgroups, partial(_kill, engine, cgroups)) as guards:
                yield cls(
                    site=Site(node, instance, folder),
                    engine=engine,
                    maker=Maker(
                        engine,
                        Images(engine, settings.recipes_path),
                        profile=profile,
                        host=Host(cpus=int(info["NCPU"]), cgroup_parent=cgroups.parent),
                        users=Users(settings.sandbox_uid_range),
                        configure=configure,
                    ),
                    guards=guards,
                    waits=Patience(settings.patience),
                    report_s=settings.patient(settings.launch_timeout_s),
                )

    async def launch(self, order: SandboxOrder) -> Sandbox:
        """Start a sandbox. On any failure, and when cancelled, nothing of it stays.

        Raises ImageMissing, IsolationMissing, LaunchFailed, ProtocolViolation or
        DockerUnavailable.
        """
        sandbox_id = secrets.token_hex(8)
        home = self.site.folder / sandbox_id
        self.live.add(sandbox_id)
        container_id: str | None = None
        channel: Channel | None = None
        try:
            image = await self.maker.image_of(order.spec)
            home.mkdir(mode=0o711)
            with listen(home, SUPERVISOR_SOCKET, backlog=1) as listener:
                labels = self.site.labels(order, sandbox_id)
                made = await self.maker.make(order.spec, image, home, labels)
                container_id = made.id
                await self.engine.start(container_id)
                channel = await meet(listener, home, made, self.engine, self.report_s)
                self.guards.take(container_id, made.config)
                container = Container(
                    container_id,
                    home,
                    engine=self.engine,
                    guards=self.guards,
                    facts=await self.engine.inspect(container_id),
                    on_removed=partial(self.live.discard, sandbox_id),
                )
        except BaseException as error:
            if channel is not None:
                channel.close()
            if container_id is not None:
                self.guards.watchdog.forget(container_id)
            try:
                await self._undo(sandbox_id, home)
            except RunnerError as left:
                # What has failed here goes on, a cancellation above all.
                _log.warning("sandbox_left_to_sweep", sandbox=sandbox_id, error=left.detail)
            finally:
                self.live.discard(sandbox_id)
            if isinstance(error, OSError):
                raise LaunchFailed(f"this host refused a sandbox: {error.strerror}") from error
            raise
        identity = Identity(sandbox_id, image, self.maker.profile.hash)
        return Sandbox(identity, container, channel, self._patience)

    async def _undo(self, sandbox_id: str, home: Path) -> None:
        # A request to Docker that is under way is never abandoned: no need for a shield. By label:
        # a container that was to be created may exist unknown to us, and the name be another's.
        try:
            for facts in await self.engine.containers({SANDBOX_LABEL: sandbox_id}):
                await self.engine.remove(facts["Id"])
        finally:
            shutil.rmtree(home, ignore_errors=True)


def _kill(engine: Engine, cgroups: Cgroups, container: str) -> None:
    """End a container from the watchdog's thread; Docker does it where this worker may not."""
    try:
        cgroups.kill(container)
    finally:
        engine.kill_aside(container)
