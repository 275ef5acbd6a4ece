"""bubblewrap inside one long-lived container of a tenant: a fresh inner jail per execution.

A socket tells the container's first process to start and end jails. `loosened` holds all changes to
our specification that let an unprivileged user make a jail inside. They are for this measurement
only, and are nowhere else.
"""

import asyncio
import copy
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.oci import Config, Rootfs, created
from benchmarks.plain import HOMES, Plain, bubble, last_descendant, write_filter
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.spec import SOCKET_DIR
from runner.sandbox.guest.sockets import listen
from runner.words.errors import LaunchFailed

_CONTROL = "control.sock"
_FILTER = "filter.bpf"
_PR_SET_SECCOMP = 22


class Inner(Plain):
    """bubblewrap inside one long-lived container of a tenant, loosened as far as necessary."""

    name = "inner"
    program = "/usr/bin/bwrap"

    def __init__(
        self, url: str, folder: Path, rootfs: Rootfs, profiles: Path, docker: Engine
    ) -> None:
        super().__init__(url, folder, rootfs, profiles)
        self._docker = docker
        self._control: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._container = ""
        self.init = 0

    async def start(self, container: str) -> None:
        """Have the container's first process start it."""
        config = self.configs[container]
        async with self._lock:
            if self._control is None:
                await self._open(config, _home(config).parent)
            arguments = bubble(config, "/", f"{HOMES}/{_home(config).name}", 9)
            await self._say({"start": container, "arguments": arguments})

    async def _open(self, config: Config, homes: Path) -> None:
        write_filter(self.profiles, homes / _FILTER)
        with listen(homes, _CONTROL, backlog=1) as listener:
            listener.setblocking(True)  # noqa: FBT003 - the standard library's signature
            listener.settimeout(10)
            self._container = await created(
                self._docker, "benchmark-tenant", loosened(config, homes)
            )
            await self._docker.start(self._container)
            self._control, _ = await asyncio.to_thread(listener.accept)
        self.init = int((await self._docker.state(self._container))["Pid"])

    async def _say(self, command: dict[str, Any]) -> None:
        if self._control is None:
            raise LaunchFailed("the tenant's container is not there")
        self._control.sendall(json.dumps(command).encode() + b"\n")
        if not await asyncio.to_thread(self._control.recv, 1):
            raise LaunchFailed("the tenant's container has ended")

    def pid(self, container: str) -> int | None:
        """Return the supervisor that has this name in its environment, with its id on the host."""
        children = Path(f"/proc/{self.init}/task/{self.init}/children").read_text().split()
        for child in children:
            with suppress(FileNotFoundError, ProcessLookupError):
                arguments = Path(f"/proc/{child}/cmdline").read_text()
                if _home(self.configs[container]).name in arguments:
                    return last_descendant(int(child))
        return None

    async def remove(self, container: str) -> None:
        """Have it killed, and wait for its end."""
        async with self._lock:
            await self._say({"end": container})

    async def close(self) -> None:
        """Remove the tenant's container."""
        if self._control is not None:
            self._control.close()
            await self._docker.remove(self._container)


NEEDED = ("capget", "capset", "clone", "mount", "pivot_root", "sethostname", "umount2", "unshare")
"""Calls that our filter refuses and bubblewrap needs (clone: with flags of namespaces)."""

INIT = """
import json, os, socket, subprocess
control = socket.socket(socket.AF_UNIX)
control.connect("/run/homes/control.sock")
os.dup2(os.open("/run/homes/filter.bpf", os.O_RDONLY), 8)
running = {}
def fresh():
    os.dup2(os.open("/run/homes/filter.bpf", os.O_RDONLY), 9)
for line in control.makefile():
    said = json.loads(line)
    if "start" in said:
        running[said["start"]] = subprocess.Popen(
            ["/opt/bwrap", *said["arguments"]], preexec_fn=fresh, close_fds=False)
    elif said["end"] in running:
        process = running.pop(said["end"])
        process.kill()
        process.wait()
    control.sendall(b".")
"""


def loosened(config: Config, homes: Path) -> dict[str, Any]:
    """Return our configuration with the changes that an unprivileged jail inside needs."""
    loose = copy.deepcopy(dict(config))
    host = loose["HostConfig"]
    name, _, text = host["SecurityOpt"][1].partition("=")
    profile = json.loads(text)
    for entry in profile["syscalls"]:
        entry["names"] = [each for each in entry["names"] if each not in NEEDED]
    profile["syscalls"] = [entry for entry in profile["syscalls"] if entry["names"]]
    profile["syscalls"] += [
        {"names": list(NEEDED), "action": "SCMP_ACT_ALLOW"},
        # lo in the new network namespace, and the jail's own filter.
        _first_argument("socket", socket.AF_NETLINK),
        _first_argument("prctl", _PR_SET_SECCOMP),
    ]
    host["SecurityOpt"][1] = f"{name}={json.dumps(profile)}"
    # A user namespace may mount a /proc only if the existing one hides nothing (mount_too_revealing
    # in fs/namespace.c).
    host["MaskedPaths"], host["ReadonlyPaths"] = [], []
    host["Mounts"] = [
        {**host["Mounts"][0], "Source": str(homes), "Target": HOMES},
        {**host["Mounts"][0], "Source": Inner.program, "Target": "/opt/bwrap"},
    ]
    host["Tmpfs"][SOCKET_DIR] = "rw,size=4k,mode=0755"
    # All jails in the container share its limits; none of them has its own.
    for limit in ("Memory", "MemorySwap", "PidsLimit"):
        host[limit] *= 16
    host["NanoCpus"] = 0
    loose["Entrypoint"] = ["/usr/bin/python3", "-I", "-S", "-c", INIT]
    return loose


def _home(config: Config) -> Path:
    return Path(config["HostConfig"]["Mounts"][0]["Source"])


def _first_argument(name: str, value: int) -> dict[str, Any]:
    test = {"index": 0, "value": value, "op": "SCMP_CMP_EQ"}
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [test]}
