"""Ways to run one program in our image with our configuration, for the table of peers."""

import copy
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import docker

from benchmarks import oci
from benchmarks.cli import HardenedRun
from benchmarks.plain import CGROUPS, CONTROLLERS, Nsjail
from runner.base.seccomp import load_profile
from runner.base.settings import Settings
from runner.quotas.sizes import DEFAULT_SIZE, load_sizes
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.spec import SOCKET_DIR, Host, Placement, container_config
from runner.sandbox.observe.cgroups import UNIFIED, Cgroups

PATIENCE_S = 60
PARENT = "/runner-benchmark-peers"


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Way:
    """Runs a program and returns its output; what comes afterwards is not measured."""

    run: Callable[..., bytes]
    after: Callable[[], None] = nothing


def checked(command: list[str], before: Callable[[], None] | None = None) -> bytes:
    """Return a command's output. Raises RuntimeError with its last words."""
    ran = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        timeout=PATIENCE_S, preexec_fn=before,
    )  # fmt: skip
    if ran.returncode:
        words = (ran.stderr or ran.stdout).decode(errors="replace")[-300:]
        raise RuntimeError(words.strip() or f"exit code {ran.returncode}")
    return ran.stdout


def command(*words: str) -> Way:
    """Run a program with these words in front of it."""
    return Way(lambda *program: checked([*words, *program]))


def on_host(*words: str) -> Way:
    """Run a program on the host's own files, with the system's Python and not a user's."""
    return Way(lambda *program: checked([*words, "/usr/bin/python3", *program[1:]]))


@contextmanager
def running(hardened: HardenedRun) -> Iterator[str]:
    """Keep one hardened container running; yield its id."""
    words = hardened.command
    at = words.index("run")
    detached = [*words[: at + 1], "--detach", *words[at + 1 :], "sleep", "3600"]
    container = checked(detached).decode().strip()
    try:
        yield container
    finally:
        checked([*words[:at], "rm", "--force", container])


class Ours:
    """Our own configuration, for other tools."""

    def __init__(self, settings: Settings, image: str, folder: Path, stack: ExitStack) -> None:
        self.settings = settings
        self.image = image
        self.folder = folder
        self.stack = stack
        self.resources = load_sizes(settings.profiles_path)[DEFAULT_SIZE].resources
        self.home = folder / "home"
        self.home.mkdir(mode=0o711)
        self._rootfs: oci.Rootfs | None = None

    def config(self, parent: str) -> dict[str, Any]:
        """Return what the product would give to Docker."""
        placement = Placement(self.image, self.home, self.settings.sandbox_uid_range[0], {})
        host = Host(os.cpu_count() or 1, parent)
        return container_config(
            placement, self.resources, load_profile(self.settings.profiles_path), host
        )

    async def rootfs(self, engine: Engine) -> oci.Rootfs:
        """Return the image's files, mounted once."""
        if self._rootfs is None:
            container = await oci.created(engine, "runner-benchmark-layers", self.config(""))
            try:
                facts = await engine.inspect(container) or {}
            finally:
                await engine.remove(container)
            self._rootfs = oci.Rootfs(self.folder, facts)
            self.stack.callback(self._rootfs.close)
        return self._rootfs

    def by_api(self) -> Way:
        """Create, start, wait, read and remove by the Engine API; a log is kept to be read."""
        client = docker.APIClient(self.settings.docker_url, version="auto", timeout=PATIENCE_S)
        self.stack.callback(client.close)
        config = self.config("")
        config["HostConfig"].update(Mounts=[], LogConfig={"Type": "json-file", "Config": {}})

        def run(*program: str) -> bytes:
            given = {**config, "Entrypoint": list(program)}
            made = client.create_container_from_config(given)  # type: ignore[no-untyped-call]
            try:
                client.start(made["Id"])
                code = client.wait(made["Id"])["StatusCode"]
                said = bytes(client.logs(made["Id"], stdout=True, stderr=bool(code)))
            finally:
                client.remove_container(made["Id"], force=True)
            if code:
                raise RuntimeError(said.decode(errors="replace")[-300:])
            return said

        return Way(run)

    async def by_bundle(self, program: str, engine: Engine) -> Way | str:
        """`runc run` or `crun run` with the configuration that dockerd makes of ours."""
        if shutil.which(program) is None:
            return f"there is no {program} on this machine"
        info = (await engine.info())["info"]
        home = Path(tempfile.mkdtemp(dir=self.folder, prefix=program))
        runtime = oci.Runtime(self.settings.docker_url, home, await self.rootfs(engine), engine)
        spec = await runtime.specification("NAME", self.config(Cgroups.of(info).parent))
        spec["mounts"] = [each for each in spec["mounts"] if each["destination"] != SOCKET_DIR]
        group = spec["linux"]["cgroupsPath"]
        numbers = count()

        def run(*words: str) -> bytes:
            name = f"{home.name}-{next(numbers)}"
            spec["process"]["args"] = list(words)
            spec["linux"]["cgroupsPath"] = group.replace("NAME", name)
            (home / "config.json").write_text(json.dumps(spec))
            state = str(home / "state")
            return checked(
                [program, "--root", state, "run", "--bundle", str(home), name],
                oci.before(program),
            )

        return Way(run)

    async def by_nsjail(self, program: str | None, engine: Engine) -> Way | str:
        """Run it with nsjail, with as much of our specification as it supports."""
        if program is None:
            return "there is no nsjail on this machine: `--peers` installs it"
        if Cgroups.of((await engine.info())["info"]).version == UNIFIED:
            return "its control groups are made for cgroup v1 here"
        jail = Nsjail(
            self.settings.docker_url, self.folder, await self.rootfs(engine),
            self.settings.profiles_path, program,
        )  # fmt: skip
        config = copy.deepcopy(self.config(PARENT))
        self.stack.callback(_remove_groups)
        return Way(
            lambda *words: checked(
                jail.arguments({**config, "Entrypoint": ["/usr/bin/python3", *words[1:]]})
            )
        )


def _remove_groups() -> None:
    for controller in CONTROLLERS:
        with suppress(FileNotFoundError):
            (CGROUPS / controller / PARENT.strip("/")).rmdir()
