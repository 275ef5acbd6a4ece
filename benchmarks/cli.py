"""`docker run` with our own configuration as flags, as an operator would write it by hand."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from runner.base.seccomp import load_profile
from runner.base.settings import Settings
from runner.quotas.sizes import DEFAULT_SIZE, load_sizes
from runner.sandbox.engine.spec import Host, Placement, container_config

PROGRAM = ("python3", "-c", "print(1)")


class HardenedRun:
    """Runs each program with `docker run`, in a container of its own. `folder` holds its files."""

    def __init__(
        self, settings: Settings, image: str, folder: Path, *, hardened: bool = True
    ) -> None:
        program = shutil.which("docker")
        if program is None:
            raise RuntimeError("the docker command is missing: `apt-get install docker.io`")
        self._docker = [program, "--host", settings.docker_url]
        self._image = image
        self._flags = flags_of(settings, image, folder) if hardened else ["--network", "none"]

    @property
    def command(self) -> list[str]:
        """The whole command."""
        return [*self._docker, "run", "--rm", *self._flags, "--entrypoint", "", self._image]

    def run(self, *program: str) -> bytes:
        """Return the program's output."""
        ran = subprocess.run(
            [*self.command, *program], capture_output=True, check=False, timeout=60
        )
        if ran.returncode:
            raise RuntimeError(f"docker run failed: {ran.stderr.decode()[:500]}")
        return ran.stdout

    def timed(self) -> float:
        """Return the seconds of one run. Raises RuntimeError if it failed."""
        began = time.perf_counter()
        if self.run(*PROGRAM) != b"1\n":
            raise RuntimeError("docker run put out something else")
        return time.perf_counter() - began


def flags_of(settings: Settings, image: str, folder: Path) -> list[str]:
    """Return our container's configuration as flags of `docker run`."""
    limits = load_sizes(settings.profiles_path)[DEFAULT_SIZE]
    profile = load_profile(settings.profiles_path)
    placement = Placement(image, Path("/nonexistent"), settings.sandbox_uid_range[0], {})
    config = container_config(placement, limits.resources, profile, Host(64, ""))
    host: dict[str, Any] = config["HostConfig"]
    seccomp = folder / "seccomp.json"
    seccomp.write_text(json.dumps(json.loads(profile.json)))
    flags = [
        "--user", config["User"], "--workdir", config["WorkingDir"], "--hostname", "sandbox",
        "--network", "none", "--cap-drop", "ALL", "--read-only", "--ipc", "private",
        "--cgroupns", "private", "--log-driver", "none", "--runtime", host["Runtime"],
        "--security-opt", "no-new-privileges", "--security-opt", f"seccomp={seccomp}",
        "--memory", str(host["Memory"]), "--memory-swap", str(host["MemorySwap"]),
        "--cpus", str(limits.cpu), "--pids-limit", str(host["PidsLimit"]),
    ]  # fmt: skip
    for variable in config["Env"]:
        flags += ["--env", variable]
    for target, options in host["Tmpfs"].items():
        flags += ["--tmpfs", f"{target}:{options}"]
    for limit in host["Ulimits"]:
        flags += ["--ulimit", f"{limit['Name']}={limit['Soft']}:{limit['Hard']}"]
    return flags
