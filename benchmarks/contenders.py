"""The engines that can start our sandbox, and how to open each; a missing one has its reason."""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import inner, oci, plain
from runner.base.seccomp import load_profile
from runner.base.settings import Settings
from runner.quotas.sizes import DEFAULT_SIZE, load_sizes
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.images import Images
from runner.sandbox.engine.maker import Configure, Maker
from runner.sandbox.engine.spec import Host, container_config
from runner.sandbox.engine.users import Users
from runner.sandbox.guest.patience import Patience
from runner.sandbox.launch import Launcher, SandboxOrder, Site
from runner.sandbox.observe.cgroups import UNIFIED, Cgroups
from runner.sandbox.observe.guards import Guards
from runner.sandbox.observe.isolation import EffectiveIsolation
from runner.sandbox.observe.keeper import Keeper
from runner.sandbox.observe.watchdog import Watchdog
from runner.words.errors import RunnerError
from runner.words.sandbox import SandboxSpec


@dataclass
class Contender:
    """One way to start a sandbox, and its measurements."""

    name: str
    launcher: Launcher
    order: SandboxOrder
    latency_s: list[float] = field(default_factory=list)
    removal_s: list[float] = field(default_factory=list)
    rates: dict[int, list[float]] = field(default_factory=dict)
    cpu_s: list[float] = field(default_factory=list)
    memory_mb: float = 0.0
    isolation: EffectiveIsolation | None = None
    inside: dict[str, Any] = field(default_factory=dict)
    probes_held: int = 0
    breached: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def stop_at(self) -> frozenset[int]:
        """Return the processes that do not belong to a jail: init, ours, a tenant's container."""
        init = getattr(self.launcher.engine, "init", 1)
        return frozenset({0, 1, os.getpid(), init})


class Field:
    """Opens the contenders that this machine has, and says why it lacks the others."""

    def __init__(
        self, settings: Settings, docker: Engine, folder: Path, *, parent: str = ""
    ) -> None:
        self.settings = settings
        self.docker = docker
        self.folder = folder
        self.parent = parent
        size = load_sizes(settings.profiles_path)[DEFAULT_SIZE]
        self.order = SandboxOrder(SandboxSpec(settings.images[0], size.resources))
        self.absent: dict[str, str] = {}
        self.contenders: list[Contender] = []

    def launcher(self, engine: Engine, info: dict[str, Any], configure: Configure) -> Launcher:
        """Return the product's launcher on top of an engine."""
        cgroups = Cgroups.of(info)
        homes = Path(tempfile.mkdtemp(dir=self.folder))
        homes.chmod(0o711)
        watchdog = Watchdog(cgroups.read, cgroups.end, cgroups.processes)
        return Launcher(
            site=Site(self.folder.name, "only", homes),
            engine=engine,
            maker=Maker(
                engine,
                Images(engine, self.settings.recipes_path),
                profile=load_profile(self.settings.profiles_path),
                host=Host(int(info["NCPU"]), self.parent or cgroups.parent),
                users=Users(self.settings.sandbox_uid_range),
                configure=configure,
            ),
            guards=Guards(cgroups, watchdog, Keeper(cgroups, watchdog)),
            waits=Patience(1),
            report_s=20,
        )

    async def open(self, stack: AsyncExitStack, nsjail: str) -> None:
        """Open each one for a try; those that fail are missing."""
        info = (await self.docker.info())["info"]
        docker = Contender("Docker", self.launcher(self.docker, info, container_config), self.order)
        self.contenders.append(docker)
        sandbox = await docker.launcher.launch(self.order)
        facts = await self.docker.inspect(sandbox.container.id) or {}
        await sandbox.destroy()
        rootfs = oci.Rootfs(self.folder, facts)
        stack.callback(rootfs.close)
        url, profiles = self.settings.docker_url, self.settings.profiles_path
        alone = (url, self.folder, rootfs, profiles)
        tenant = inner.Inner(*alone, self.docker)
        stack.push_async_callback(tenant.close)
        given = (url, self.folder, rootfs, self.docker)
        await self._try("Docker with crun", "crun", info, lambda: self.docker, _by_crun)
        containerd = oci.Containerd(*given)
        stack.callback(containerd.close)
        await self._try("containerd by ctr", "ctr", info, lambda: containerd)
        await self._try("runc", "runc", info, lambda: oci.Runtime(*given))
        await self._try("crun", "crun", info, lambda: oci.Crun(*given))
        if Cgroups.of(info).version == UNIFIED:
            for name in ("bubblewrap", "nsjail"):
                self.absent[name] = "its control groups are made for cgroup v1 here"
        else:
            await self._try("bubblewrap", "bwrap", info, lambda: plain.Bubblewrap(*alone))
            await self._try("nsjail", nsjail, info, lambda: plain.Nsjail(*alone, nsjail))
        await self._try("bubblewrap in a container", "bwrap", info, lambda: tenant)

    async def _try(
        self,
        name: str,
        program: str,
        info: dict[str, Any],
        make: Callable[[], Engine],
        configure: Configure = container_config,
    ) -> None:
        if shutil.which(program) is None:
            self.absent[name] = f"there is no {program} on this machine"
            return
        try:
            contender = Contender(name, self.launcher(make(), info, configure), self.order)
            await (await contender.launcher.launch(self.order)).destroy()
        except (RunnerError, OSError) as error:
            self.absent[name] = str(error)
        else:
            self.contenders.append(contender)


def _by_crun(*given: Any) -> dict[str, Any]:
    config = container_config(*given)
    config["HostConfig"]["Runtime"] = "crun"
    return config
