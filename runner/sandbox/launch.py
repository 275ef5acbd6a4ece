"""From an order to a started sandbox: folder, user and container, connection, in this order.

The folder holds one listening socket. It is mounted into this container alone, takes one
connection before any program of a tenant runs, and is unlinked then: nobody can connect later.
"""

import asyncio
import secrets
import shutil
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from runner.base.seccomp import SeccompProfile, load_profile
from runner.base.settings import Settings
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.images import Images
from runner.sandbox.engine.spec import RUNTIMES, Host, Placement, container_config
from runner.sandbox.engine.users import Users, container_name, taken_ids, write_accounts
from runner.sandbox.guest.channel import Channel, greeted
from runner.sandbox.guest.patience import Patience
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.guest.sockets import SUPERVISOR_SOCKET, listen
from runner.sandbox.observe.cgroups import Cgroups
from runner.sandbox.observe.isolation import LIMITLESS, read_isolation
from runner.sandbox.observe.keeper import Keeper
from runner.sandbox.observe.traces import traces
from runner.sandbox.observe.watchdog import Watchdog
from runner.words.errors import IsolationMissing, LaunchFailed, ProtocolViolation, RunnerError
from runner.words.resources import Resources
from runner.words.sandbox import WORKSPACE, Isolation, SandboxSpec

NODE_LABEL = "runner.node"
INSTANCE_LABEL = "runner.instance"
SANDBOX_LABEL = "runner.sandbox"
_CREDENTIALS = struct.Struct("3i")
_GOFER_UID = 0
"""gVisor's gofer, root on the host, opens the host's sockets for its sandbox; nobody inside can."""

_log = structlog.get_logger("runner.worker")

__all__ = ["Launcher", "Sandbox", "SandboxOrder"]

Configure = Callable[[Placement, Resources, SeccompProfile, Host], dict[str, Any]]
"""Makes a container's configuration; a security check passes one that lacks a control."""


@dataclass(frozen=True, slots=True)
class SandboxOrder:
    """What sandbox is wanted; tenant, execution and attempt become its container's labels.

    One that is started ahead is nobody's: the audit log tells whose it became.
    """

    spec: SandboxSpec
    tenant: str = ""
    execution: str = ""
    attempt: str = ""


class Launcher:
    """Starts sandboxes on one Docker daemon for one worker."""

    def __init__(
        self,
        *,
        engine: Engine,
        images: Images,
        profile: SeccompProfile,
        cgroups: Cgroups,
        watchdog: Watchdog,
        keeper: Keeper,
        host: Host,
        users: Users,
        sandboxes_dir: Path,
        node: str,
        instance: str,
        timeout_s: float,
        patience: int = 1,
        configure: Configure = container_config,
    ) -> None:
        self.engine = engine
        self.sandboxes_dir = sandboxes_dir
        self.node = node
        self.instance = instance
        self.live: set[str] = set()
        self._images = images
        self._profile = profile
        self.cgroups = cgroups
        self._watchdog = watchdog
        self._keeper = keeper
        self._host = host
        self._users = users
        self._timeout_s = timeout_s
        self._patience = Patience(patience)
        self.configure = configure

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
        sandboxes_dir = settings.run_dir / "sandboxes"
        sandboxes_dir.mkdir(parents=True, exist_ok=True)
        sandboxes_dir.chmod(0o700)
        async with Engine(
            settings.docker_url,
            timeout_s=settings.patient(settings.docker_timeout_s),
            threads=settings.slots + 4,
        ) as engine:
            info = (await engine.info())["info"]
            cgroups = Cgroups.of(info)
            with (
                Watchdog.running(
                    cgroups.read, partial(_kill, engine, cgroups), cgroups.processes
                ) as watchdog,
                Keeper.running(cgroups, watchdog) as keeper,
            ):
                yield cls(
                    engine=engine,
                    images=Images(engine, settings.recipes_path),
                    profile=profile,
                    cgroups=cgroups,
                    watchdog=watchdog,
                    keeper=keeper,
                    host=Host(cpus=int(info["NCPU"]), cgroup_parent=cgroups.parent),
                    users=Users(settings.sandbox_uid_range),
                    sandboxes_dir=sandboxes_dir,
                    node=node,
                    instance=instance,
                    timeout_s=settings.patient(settings.launch_timeout_s),
                    patience=settings.patience,
                    configure=configure,
                )

    async def launch(self, order: SandboxOrder) -> Sandbox:
        """Start a sandbox. On any failure, and when cancelled, nothing of it stays.

        Raises ImageMissing, IsolationMissing, LaunchFailed, ProtocolViolation or
        DockerUnavailable.
        """
        sandbox_id = secrets.token_hex(8)
        home = self.sandboxes_dir / sandbox_id
        self.live.add(sandbox_id)
        container_id: str | None = None
        channel: Channel | None = None
        try:
            await self._require(order.spec.isolation)
            image_id = await self._images.require(order.spec.image)
            home.mkdir(mode=0o711)
            with listen(home, SUPERVISOR_SOCKET, backlog=1) as listener:
                container_id, config = await self._create(order, sandbox_id, home, image_id)
                await self.engine.start(container_id)
                expected = _peer_of(config, order.spec.isolation)
                channel = await self._meet(listener, home, container_id, expected)
                self._keep_limits(container_id, config)
                facts = await self.engine.inspect(container_id)
                isolation = read_isolation(facts) if facts else None
        except BaseException as error:
            if channel is not None:
                channel.close()
            if container_id is not None:
                self._watchdog.forget(container_id)
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
        return Sandbox(
            id=sandbox_id,
            container_id=container_id,
            image_digest=image_id,
            profile_hash=self._profile.hash,
            isolation=isolation,
            channel=channel,
            engine=self.engine,
            cgroups=self.cgroups,
            watchdog=self._watchdog,
            home=home,
            on_destroyed=self.live.discard,
            waits=self._patience,
            traces=partial(traces, facts or {}, isolation, self.cgroups),
        )

    async def _create(
        self, order: SandboxOrder, sandbox_id: str, home: Path, image_id: str
    ) -> tuple[str, dict[str, Any]]:
        """Create the container as a user that no other sandbox is; return its id and configuration.

        Raises LaunchFailed when every user id is taken.
        """
        labels = self._labels(order, sandbox_id)
        taken: set[int] = set()
        while (uid := self._users.next(taken)) is not None:
            write_accounts(home, uid, WORKSPACE)
            placement = Placement(image_id, home, uid, labels, order.spec.isolation)
            config = self.configure(placement, order.spec.resources, self._profile, self._host)
            container_id = await self.engine.create(container_name(uid), config)
            if container_id is not None:
                return container_id, config
            taken |= taken_ids(await self.engine.names()) | {uid}
        raise LaunchFailed(
            "sandboxes hold every user id of RUNNER_SANDBOX_UIDS; give it a longer range"
        )

    @property
    def failing(self) -> Mapping[str, str]:
        """What is wrong, by the names of the threads that do not do their work now."""
        threads: dict[str, Watchdog | Keeper] = {
            "ending sandboxes in time": self._watchdog,
            "keeping sandboxes' limits": self._keeper,
        }
        return {
            name: "its thread has ended; restart the worker"
            for name, thread in threads.items()
            if not thread.alive
        }

    def _keep_limits(self, container_id: str, config: dict[str, Any]) -> None:
        self._watchdog.guard(container_id)
        try:
            self._keeper.keep(container_id, self.cgroups.limits(config["HostConfig"]))
        except OSError as error:
            raise LaunchFailed(f"a limit of the sandbox cannot be set: {error}") from error

    async def digest(self, image: str) -> str:
        """Return the digest that sandboxes of this image have today. Raises ImageMissing."""
        return await self._images.require(image)

    async def _require(self, isolation: Isolation) -> None:
        """Refuse what this Docker cannot give; asked each time, as its runtimes may change."""
        if isolation is Isolation.CONTAINER:
            return
        runtimes = (await self.engine.info())["info"].get("Runtimes") or {}
        if RUNTIMES[isolation] not in runtimes:
            raise IsolationMissing(
                f"isolation {isolation} needs Docker's runtime {RUNTIMES[isolation]}, "
                "which this host has not; `runner doctor` tells how to install it"
            )
        if LIMITLESS in (runtimes[RUNTIMES[isolation]].get("runtimeArgs") or ()):
            raise IsolationMissing(
                f"Docker's runtime {RUNTIMES[isolation]} is told {LIMITLESS}: no limit of memory, "
                "processes or CPU would hold; `runner doctor` tells how to register it"
            )

    def _labels(self, order: SandboxOrder, sandbox_id: str) -> dict[str, str]:
        return {
            NODE_LABEL: self.node,
            INSTANCE_LABEL: self.instance,
            SANDBOX_LABEL: sandbox_id,
            "runner.tenant": order.tenant,
            "runner.execution": order.execution,
            "runner.attempt": order.attempt,
        }

    async def _meet(
        self, listener: socket.socket, home: Path, container_id: str, expected: int
    ) -> Channel:
        """Accept the one connection and hear that the supervisor is ready."""
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._accept(listener, container_id, expected)
                home.joinpath(SUPERVISOR_SOCKET).unlink()
                reader, writer = await asyncio.open_unix_connection(sock=connection)
                return await greeted(Channel(reader, writer))
        except TimeoutError:
            raise LaunchFailed(
                f"the sandbox's supervisor did not report within {self._timeout_s:g} s"
            ) from None

    async def _accept(
        self, listener: socket.socket, container_id: str, expected: int
    ) -> socket.socket:
        loop = asyncio.get_running_loop()
        # Accepted without an await: `sock_accept` loses a connection that comes as it is cancelled.
        knocked = asyncio.Event()
        loop.add_reader(listener, knocked.set)
        knocking = asyncio.create_task(knocked.wait())
        try:
            while not (await asyncio.wait({knocking}, timeout=1.0))[0]:
                state = await self.engine.state(container_id)
                if not state.get("Running"):
                    code = state.get("ExitCode")
                    raise LaunchFailed(f"the sandbox's supervisor ended at once, exit code {code}")
        finally:
            loop.remove_reader(listener)
            knocking.cancel()
        connection, _ = listener.accept()
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(raw)
        if uid != expected:
            connection.close()
            raise ProtocolViolation(f"user {uid} connected to the sandbox's socket")
        return connection

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


def _peer_of(config: dict[str, Any], isolation: Isolation) -> int:
    """Return the user that must be seen at the other end of the sandbox's socket."""
    uid = str(config["User"]).partition(":")[0]
    return _GOFER_UID if isolation is Isolation.GVISOR else int(uid)
