"""Who can start our sandbox, and how each is opened; what a machine lacks is told with its reason."""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import oci, plain
from runner.errors import RunnerError
from runner.limits import DEFAULT_SIZE, load_sizes
from runner.sandbox.cgroups import Cgroups
from runner.sandbox.engine import Engine
from runner.sandbox.images import Images
from runner.sandbox.isolation import EffectiveIsolation
from runner.sandbox.launch import Launcher, SandboxOrder, Spec
from runner.sandbox.spec import Host, container_config
from runner.seccomp import load_profile
from runner.settings import Settings


@dataclass
class Contender:
    """One way to start a sandbox, and what was measured of it."""

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
        """Return the processes that are no jail's own: init, ours, a tenant's container."""
        init = getattr(self.launcher.engine, "init", 1)
        return frozenset({0, 1, os.getpid(), init})


class Field:
    """Opens the contenders that this machine has, and tells why it lacks the others."""

    def __init__(
        self, settings: Settings, docker: Engine, folder: Path, *, parent: str = ""
    ) -> None:
        self.settings = settings
        self.docker = docker
        self.folder = folder
        self.parent = parent
        self.order = SandboxOrder(
            settings.images[0], load_sizes(settings.profiles_path)[DEFAULT_SIZE]
        )
        self.absent: dict[str, str] = {}
        self.contenders: list[Contender] = []

    def launcher(self, engine: Engine, info: dict[str, Any], spec: Spec) -> Launcher:
        """Return the product's launcher above an engine."""
        cgroups = Cgroups.of(info)
        homes = Path(tempfile.mkdtemp(dir=self.folder))
        homes.chmod(0o711)
        return Launcher(
            engine=engine,
            images=Images(engine, self.settings.recipes_path),
            profile=load_profile(self.settings.profiles_path),
            cgroups=cgroups,
            host=Host(int(info["NCPU"]), self.parent or cgroups.parent),
            sandboxes_dir=homes,
            node=self.folder.name,
            instance="only",
            timeout_s=20,
            spec=spec,
        )

    async def open(self, stack: AsyncExitStack, nsjail: str | None) -> None:
        """Try each once; who fails is absent."""
        info = (await self.docker.info())["info"]
        url, profiles = self.settings.docker_url, self.settings.profiles_path
        layers: dict[str, str] = {}

        async def first(launcher: Launcher) -> None:
            sandbox = await launcher.launch(self.order)
            facts = await self.docker.inspect(sandbox.container_id) or {}
            await sandbox.destroy()
            layers.update(facts["GraphDriver"]["Data"])

        docker = Contender("Docker", self.launcher(self.docker, info, container_config), self.order)
        await first(docker.launcher)
        self.contenders.append(docker)
        # The first of a container's lower layers is its own, for names that Docker writes.
        rootfs = oci.Rootfs(self.folder, layers["LowerDir"].partition(":")[2])
        stack.callback(rootfs.close)
        inner = plain.Inner(url, self.folder, rootfs, profiles, self.docker)
        stack.push_async_callback(inner.close)
        by_crun = _with_runtime("crun")
        tries: list[tuple[str, str, Callable[[], Engine], Spec]] = [
            ("Docker with crun", "crun", lambda: self.docker, by_crun),
            ("containerd by ctr", "ctr", lambda: oci.Containerd(*shared), container_config),
            ("runc", "runc", lambda: oci.Runtime(*shared), container_config),
            ("crun", "crun", lambda: oci.Crun(*shared), container_config),
            ("bubblewrap", "bwrap", lambda: plain.Bubblewrap(*alone), container_config),
            ("nsjail", nsjail or "nsjail", lambda: plain.Nsjail(*alone, program=nsjail or "nsjail"),
             container_config),
            ("bubblewrap in a tenant's container", "bwrap", lambda: inner, container_config),
        ]  # fmt: skip
        shared = (url, self.folder, rootfs, self.docker)
        alone = (url, self.folder, rootfs, profiles)
        for name, program, make, spec in tries:
            if shutil.which(program) is None:
                self.absent[name] = f"there is no {program} on this machine"
                continue
            try:
                engine = make()
                contender = Contender(name, self.launcher(engine, info, spec), self.order)
                await (await contender.launcher.launch(self.order)).destroy()
                self.contenders.append(contender)
            except (RunnerError, OSError) as error:
                self.absent[name] = str(error)


def _with_runtime(name: str) -> Spec:
    def spec(*given: Any) -> dict[str, Any]:
        config = container_config(*given)
        config["HostConfig"]["Runtime"] = name
        return config

    return spec
