"""From an order to a started sandbox: folder, user and container, connection, in this order.

The folder holds one listening socket. It is mounted into this container alone, takes one
connection before any program of a tenant runs, and is unlinked then: nobody can connect later.
For a sandbox that lives on without its worker, the next worker listens there once more.
"""

import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from runner.base.seccomp import load_profile
from runner.base.settings import Settings
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.images import Images
from runner.sandbox.engine.maker import Configure, Maker, peer_of, process_of
from runner.sandbox.engine.masks import RUNTIMES_OWN, own_masks
from runner.sandbox.engine.runtimes import chosen
from runner.sandbox.engine.spec import Host, container_config
from runner.sandbox.engine.users import Users
from runner.sandbox.guest.channel import Channel
from runner.sandbox.guest.container import Container
from runner.sandbox.guest.living import LivingSandbox, Residence
from runner.sandbox.guest.meeting import CALLERS, Awaited, meet, meet_again
from runner.sandbox.guest.mux import Mux
from runner.sandbox.guest.pace import TenantPaces
from runner.sandbox.guest.patience import Patience
from runner.sandbox.guest.sandbox import Identity, Sandbox
from runner.sandbox.guest.sockets import SUPERVISOR_SOCKET, listen
from runner.sandbox.observe.cgroups import Cgroups
from runner.sandbox.observe.guards import Guards
from runner.words.errors import LaunchFailed, RunnerError
from runner.words.sandbox import CRUN, SandboxSpec
from runner.words.templates import template_in

NODE_LABEL = "runner.node"
INSTANCE_LABEL = "runner.instance"
SANDBOX_LABEL = "runner.sandbox"

_log = structlog.get_logger("runner.worker")

__all__ = ["Launcher", "Sandbox", "SandboxOrder", "Site"]


@dataclass(frozen=True, slots=True)
class SandboxOrder:
    """An order for a sandbox; tenant, execution and attempt become its container's labels.

    One that is started ahead is nobody's: the audit log tells whose it became.
    """

    spec: SandboxSpec
    tenant: str = ""
    execution: str = ""
    attempt: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """The site of sandboxes: on which node, by which worker of it, and in which folder."""

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
        declined: str | None = None,
    ) -> None:
        """Take parts that run already. A supervisor has `report_s` seconds to say it is ready.

        `declined` says why crun is not used, if the settings would have it.
        """
        self.site = site
        self.engine = engine
        self.maker = maker
        self.guards = guards
        self.report_s = report_s
        self.declined = declined
        self.live: set[str] = set()
        self._patience = waits
        self._paces = TenantPaces()

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

        Raises SetupError when the seccomp profile does not compile, limits cannot be enforced, or
        the settings name a runtime that is not fit; DockerUnavailable when the daemon does not
        answer.
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

            def maker(runtime: str) -> Maker:
                return Maker(
                    engine,
                    Images(engine, settings.recipes_path),
                    profile=profile,
                    host=Host(
                        cpus=int(info["NCPU"]),
                        cgroup_parent=cgroups.parent,
                        runtime=runtime,
                        masks=own_masks() if runtime == CRUN else RUNTIMES_OWN,
                    ),
                    users=Users(settings.sandbox_uid_range),
                    configure=configure,
                )

            site = Site(node, instance, folder)
            trial = {NODE_LABEL: node, INSTANCE_LABEL: instance}
            made, declined = await chosen(settings, engine, maker, folder, trial)
            with Guards.standing(cgroups, partial(_kill, engine, cgroups)) as guards:
                yield cls(
                    site=site,
                    engine=engine,
                    maker=made,
                    guards=guards,
                    waits=Patience(settings.patience),
                    report_s=settings.patient(settings.launch_timeout_s),
                    declined=declined,
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
                    paces=self._paces,
                    facts=await self.engine.inspect(container_id),
                    on_removed=partial(self.live.discard, sandbox_id),
                )
                channel.pace = container.pace
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
        identity = Identity(sandbox_id, image.digest, self.maker.profile.hash)
        furnished = template_in(order.spec.image) is not None and not order.spec.builds
        return Sandbox(identity, container, channel, self._patience, furnished=furnished)

    async def adopt(self, residence: Residence) -> LivingSandbox:
        """Take over a sandbox that an earlier worker of this node has told to live.

        One that is paused is so again when this returns. Raises LaunchFailed if the sandbox is
        gone or does not return in time, ProtocolViolation, or DockerUnavailable. Nothing is removed
        then: `reap.remove_strays` does that once the sandbox may not live any more.
        """
        container_id, home = residence.container_id, self.site.folder / residence.sandbox_id
        self.live.add(residence.sandbox_id)
        async with AsyncExitStack() as undo:
            undo.callback(self.live.discard, residence.sandbox_id)
            facts = self._standing(residence, await self.engine.inspect(container_id))
            undo.callback(self.guards.watchdog.forget, container_id)
            self.guards.take(container_id, facts)
            container = Container(
                container_id,
                home,
                engine=self.engine,
                guards=self.guards,
                paces=self._paces,
                facts=facts,
                on_removed=partial(self.live.discard, residence.sandbox_id),
            )
            if paused := facts["State"]["Paused"]:
                await container.resume()
            channel = await self._regain(residence, home, facts)
            channel.pace = container.pace
            living = LivingSandbox(
                residence,
                container,
                Mux(channel.release(), self._patience, returning=True),
                self._patience,
            )
            undo.callback(living.leave)
            await living.take_over()
            if paused:
                await living.pause()
            undo.pop_all()
        return living

    def _standing(self, residence: Residence, facts: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return what Docker says of a sandbox's container, which runs, and is that sandbox's."""
        wanted = {NODE_LABEL: self.site.node, SANDBOX_LABEL: residence.sandbox_id}
        if facts is None or not facts["State"]["Running"]:
            raise LaunchFailed("the sandbox's container does not run any more")
        if not wanted.items() <= (facts["Config"]["Labels"] or {}).items():
            raise LaunchFailed("the container is another sandbox's, or another node's")
        return facts

    async def _regain(self, residence: Residence, home: Path, facts: Mapping[str, Any]) -> Channel:
        path = home / SUPERVISOR_SOCKET
        config = facts["Config"]
        runtime = facts["HostConfig"]["Runtime"]
        awaited = Awaited(
            residence.sandbox_id,
            config["Image"],
            residence.secret,
            user=peer_of(config, runtime),
            pid=process_of(facts, runtime),
        )
        try:
            path.unlink(missing_ok=True)
            with listen(home, SUPERVISOR_SOCKET, backlog=CALLERS) as listener:
                return await meet_again(listener, awaited, self.report_s)
        except OSError as error:
            raise LaunchFailed(f"this host refused a socket: {error.strerror}") from error
        finally:
            # Nobody can connect later.
            path.unlink(missing_ok=True)

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
