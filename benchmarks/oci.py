"""runc, crun and containerd instead of dockerd, with the configuration that dockerd makes.

Each is an engine below the same launcher, which makes the socket, waits for the supervisor and
reads the isolation back. The configuration comes from a container that dockerd starts for the same
order. Only the places of the root file system, the socket and the control group are changed.
"""

import asyncio
import copy
import ctypes
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.sandbox.engine.docker import Engine, Facts
from runner.sandbox.engine.spec import SOCKET_DIR
from runner.sandbox.guest.sockets import SUPERVISOR_SOCKET, listen
from runner.words.errors import LaunchFailed

Config = Mapping[str, Any]
NAMESPACE = "runner-benchmark"
_UNIFIED = Path("/sys/fs/cgroup/unified")
_CLONE_NEWNS = 0x00020000
_MNT_DETACH = 2
_RECURSIVELY_PRIVATE = (1 << 14) | (1 << 18)
_libc = ctypes.CDLL(None, use_errno=True)


class Rootfs:
    """An image's layers, mounted once and read-only for all jails, without an upper layer."""

    def __init__(self, folder: Path, container: Mapping[str, Any]) -> None:
        """Mount the image of a container that Docker describes so."""
        # The first of a container's lower layers is its own; Docker writes names there.
        _, _, layers = container["GraphDriver"]["Data"]["LowerDir"].partition(":")
        self.path = folder / "rootfs"
        self.path.mkdir()
        points = folder / "points"
        # Docker makes the targets of mounts in each container's own upper layer.
        for name in ("etc", "proc", "dev", "sys", "tmp", SOCKET_DIR[1:], "workspace"):
            (points / name).mkdir(parents=True, exist_ok=True)
        points.joinpath("etc", "hostname").write_text("sandbox\n")
        options = f"ro,lowerdir={points}:{layers}"
        run("mount", "-t", "overlay", NAMESPACE, "-o", options, str(self.path))

    def close(self) -> None:
        """Unmount it."""
        run("umount", "--lazy", str(self.path))


class Direct(Engine):
    """Common parts of the engines without dockerd; images still come from Docker."""

    name = "direct"

    def __init__(self, url: str, folder: Path, rootfs: Rootfs) -> None:
        super().__init__(url, timeout_s=60, threads=8)
        self.folder = folder / self.name
        self.folder.mkdir(mode=0o711)
        self.rootfs = rootfs
        self.configs: dict[str, Config] = {}
        self._images: dict[str, list[Facts]] = {}

    async def images(self, label: str) -> list[Facts]:
        """Return Docker's images as they were: a product without dockerd would not ask it."""
        if label not in self._images:
            self._images[label] = await super().images(label)
        return self._images[label]

    async def create(self, name: str, config: Config) -> str:
        """Note what to start; nothing runs yet."""
        self.configs[name] = config
        return name

    async def inspect(self, container: str) -> Facts | None:
        """Return what `read_isolation` needs."""
        pid = await asyncio.to_thread(self.pid, container)
        if pid is None:
            return {"State": {"Pid": 0, "Running": False, "ExitCode": None}, "HostConfig": {}}
        return {"State": {"Pid": pid, "Running": True}, "HostConfig": {"Runtime": self.name}}

    def pid(self, container: str) -> int | None:
        """Return the host's id of the jail's first process."""
        raise NotImplementedError


class Runtime(Direct):
    """Drives an OCI runtime through its command."""

    program = "runc"
    name = "runc"

    def __init__(self, url: str, folder: Path, rootfs: Rootfs, docker: Engine) -> None:
        super().__init__(url, folder, rootfs)
        self._docker = docker
        self._templates: dict[str, Facts] = {}

    async def start(self, container: str) -> None:
        """Write the bundle, create and start."""
        bundle = self.folder / container
        bundle.mkdir()
        spec = await self.specification(container, self.configs[container])
        (bundle / "config.json").write_text(json.dumps(spec))
        await asyncio.to_thread(self._start, container, bundle)

    def _start(self, container: str, bundle: Path) -> None:
        self.command("run", "--detach", "--bundle", bundle, "--pid-file", bundle / "pid", container)

    async def remove(self, container: str) -> None:
        """Kill and remove it."""
        await asyncio.to_thread(self._remove, container)
        shutil.rmtree(self.folder / container, ignore_errors=True)
        self.configs.pop(container, None)

    def _remove(self, container: str) -> None:
        if pid := self.pid(container):
            end(pid)
        # The runtime only has to remove its control group and its state.
        with suppress(LaunchFailed):
            self.command("delete", "--force", container)

    async def kill(self, container: str) -> None:
        """SIGKILL it."""
        if pid := self.pid(container):
            await asyncio.to_thread(end, pid)

    def pid(self, container: str) -> int | None:
        """Return the process id that the runtime wrote to a file."""
        try:
            pid = int((self.folder / container / "pid").read_text())
        except FileNotFoundError:
            return None
        return pid if Path(f"/proc/{pid}").exists() else None

    def command(self, *arguments: object) -> None:
        """Run the runtime with our state folder. Raises LaunchFailed with the end of its log."""
        log = self.folder / "log"
        state = ("--root", self.folder / "state", "--log", log)
        # Descriptors are inherited into the container, whose stderr must not be one of ours.
        done = subprocess.run(
            [self.program, *map(str, state), *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=before(self.program),
            check=False, timeout=60,
        )  # fmt: skip
        if done.returncode:
            raise LaunchFailed(f"{self.name} {arguments[0]}: {log.read_text()[-400:]}")

    async def specification(self, container: str, config: Config) -> Facts:
        """Return the configuration that dockerd makes of such a container, adapted to this one."""
        user = config["User"]
        uid, _, _ = user.partition(":")
        unplaced = {**config, "Labels": {}, "HostConfig": _unplaced(config)}
        key = json.dumps(unplaced, sort_keys=True).replace(uid, "UID")
        if key not in self._templates:
            self._templates[key] = await template(self._docker, config, self.folder)
        spec = copy.deepcopy(self._templates[key])
        before = spec["process"]["user"]
        spec["process"]["user"] = {**before, "uid": int(uid), "gid": int(uid)}
        spec["root"]["path"] = str(self.rootfs.path)
        spec["linux"]["cgroupsPath"] = spec["linux"]["cgroupsPath"].replace("TEMPLATE", container)
        for mount in spec["mounts"]:
            if mount["destination"] == SOCKET_DIR:
                mount["source"] = config["HostConfig"]["Mounts"][0]["Source"]
            elif mount["destination"] == "/etc/hostname":
                mount["source"] = str(self.rootfs.path / "etc" / "hostname")
            elif mount["destination"] == "/dev/pts":
                # dockerd mounted a volume there, which is gone with the template's container.
                options = config["HostConfig"]["Mounts"][1]["VolumeOptions"]["DriverConfig"]
                given = options["Options"]["o"].split(",")
                mount.update(type="devpts", source="devpts", options=given)
            elif mount["type"] == "tmpfs":
                mount["options"] = [
                    f"{name}={uid}" if (name := each[:3]) in {"uid", "gid"} else each
                    for each in mount["options"]
                ]
        return spec


class Crun(Runtime):
    """The same by the runtime that is written in C."""

    program = "crun"
    name = "crun"


class Containerd(Runtime):
    """Drives dockerd's own containerd, in a namespace of ours, through its command `ctr`."""

    program = "ctr"
    name = "containerd"
    address = ""

    def _start(self, container: str, bundle: Path) -> None:
        config, pid = bundle / "config.json", bundle / "pid"
        self.command(
            "run", "--detach", "--null-io", "--config", config, "--pid-file", pid, container
        )

    def _remove(self, container: str) -> None:
        for what in (("task", "delete", "--force"), ("container", "delete")):
            with suppress(LaunchFailed):
                self.command(*what, container)

    def close(self) -> None:
        """Remove our namespace from containerd, if a container of ours was ever in it."""
        if self.address:
            with suppress(LaunchFailed):
                self.command("namespaces", "remove", NAMESPACE)

    def command(self, *arguments: object) -> None:
        """Run ctr. Raises LaunchFailed with its error."""
        run("ctr", "--address", self.address, "--namespace", NAMESPACE, *map(str, arguments))


async def created(docker: Engine, name: str, config: Config) -> str:
    """Create a container under a unique name, and return its id."""
    container = await docker.create(name, config)
    if container is None:
        raise LaunchFailed(f"there is a container {name} from an earlier run: remove it")
    return container


async def template(docker: Engine, config: Config, folder: Path) -> Facts:
    """Return the OCI configuration that dockerd makes of ours, as its shim got it."""
    home = _home(folder)
    given = copy.deepcopy(dict(config))
    given["HostConfig"]["Mounts"][0]["Source"] = str(home)
    with listen(home, SUPERVISOR_SOCKET, backlog=1):
        container = await created(docker, f"template-{home.name}", given)
        try:
            await docker.start(container)
            shim = parent(int((await docker.state(container))["Pid"]))
            Containerd.address = _argument(shim, "-address")
            spec = _bundled(shim)
        finally:
            await docker.remove(container)
            shutil.rmtree(home)
    spec["linux"]["cgroupsPath"] = spec["linux"]["cgroupsPath"].replace(container, "TEMPLATE")
    return spec


def _home(folder: Path) -> Path:
    home = Path(tempfile.mkdtemp(dir=folder))
    home.chmod(0o711)
    return home


def _bundled(shim: int) -> Facts:
    found: Facts = json.loads(Path(f"/proc/{shim}/cwd/config.json").read_text())
    return found


def _unplaced(config: Config) -> Facts:
    return {name: value for name, value in config["HostConfig"].items() if name != "Mounts"}


def parent(pid: int) -> int:
    """Return a process's parent (proc_pid_stat(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def line(pid: int, stop_at: frozenset[int]) -> list[int]:
    """Return a process and its ancestors, up to one of these."""
    return [] if pid in stop_at else [pid, *line(parent(pid), stop_at)]


def _argument(pid: int, name: str) -> str:
    arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return arguments[arguments.index(name) + 1]


def adopt_orphans() -> None:
    """Become the parent of processes that our children leave: jails whose runtime has ended."""
    pr_set_child_subreaper = 36
    _libc.prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def end(pid: int) -> None:
    """Kill a child and wait for it: then the processes of its namespaces are gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def run(*command: str) -> None:
    """Run a command. Raises LaunchFailed with its error."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise LaunchFailed(f"{command[0]}: {done.stderr[-400:]}")


def before(program: str) -> Callable[[], None] | None:
    """Return what a child must do before it becomes this runtime, if anything."""
    return _hide_unified if program == "crun" and _is_hybrid() else None


def _is_hybrid() -> bool:
    controllers = _UNIFIED / "cgroup.controllers"
    return controllers.exists() and bool(controllers.read_text().strip())


def _hide_unified() -> None:
    """Let crun run where cgroup v2 has a controller beside v1: it refuses to guess."""
    _libc.unshare(_CLONE_NEWNS)
    _libc.mount(None, b"/", None, _RECURSIVELY_PRIVATE, None)
    _libc.umount2(bytes(_UNIFIED), _MNT_DETACH)
