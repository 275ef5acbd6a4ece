"""Root builds templates: on the host it is nobody, and it reaches what any sandbox reaches."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner.base.seccomp import SeccompProfile
from runner.base.settings import Settings
from runner.sandbox.engine.spec import Host, Placement, container_config
from runner.sandbox.guest.living import LivingSandbox
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.words.errors import IsolationMissing
from runner.words.execution import Program
from runner.words.living import OutputPiece
from runner.words.resources import Resources
from runner.words.sandbox import Isolation, SandboxSpec
from tests.support.deployment import state_folder

NOBODY = 65534
RESOURCES = Resources(cpu=1, memory_mb=256, pids=64, disk_mb=64)
FILES = "runsc-gofer"
"""gVisor's process that opens the image's files for its kernel: the same for every sandbox."""


@dataclass(frozen=True)
class HostProcess:
    """A process of a sandbox, as the host's kernel knows it."""

    command: str
    uids: frozenset[int]
    capabilities: int
    own_users: bool
    """Whether it is in a user namespace of its own."""


@asynccontextmanager
async def launcher(**options: Any) -> AsyncIterator[Launcher]:
    """Open a launcher in a folder of its own."""
    with state_folder() as folder:
        settings = Settings(state_dir=folder)
        async with Launcher.open(settings, node=folder.name, instance="only", **options) as opened:
            yield opened


@asynccontextmanager
async def living(opened: Launcher, spec: SandboxSpec) -> AsyncIterator[LivingSandbox]:
    """Start a sandbox that lives; nothing of it stays."""
    sandbox = await opened.launch(SandboxOrder(spec))
    guest = await sandbox.live("5e" * 32, alone_s=5)
    try:
        yield guest
    finally:
        await guest.destroy()


def on_the_host(guest: LivingSandbox) -> list[HostProcess]:
    """Return the host's processes of a sandbox."""
    found = []
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal():
            continue
        try:
            if guest.residence.container_id not in (path / "cgroup").read_text():
                continue
            status = dict(
                line.split(":\t", 1)
                for line in (path / "status").read_text().splitlines()
                if ":\t" in line
            )
            found.append(
                HostProcess(
                    (path / "cmdline").read_bytes().partition(b"\0")[0].decode(),
                    frozenset(map(int, status["Uid"].split())),
                    int(status["CapEff"], 16),
                    (path / "ns/user").readlink() != Path("/proc/self/ns/user").readlink(),
                )
            )
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return found


def reaching(processes: list[HostProcess]) -> list[HostProcess]:
    """Return those that are more than nobody in a user namespace of their own."""
    return [
        each
        for each in processes
        if FILES not in each.command and not (each.uids == {NOBODY} and each.own_users)
    ]


async def said(guest: LivingSandbox, command: str) -> str:
    """Return what a command in a sandbox writes."""
    process = await guest.start(Program(("/bin/sh", "-c", command), {}, cwd="/"))
    output = b""
    async with process.attach() as attached:
        async for piece in attached:
            if isinstance(piece, OutputPiece):
                output += piece.data
    return output.decode()


async def test_root_of_a_build_is_nobody_on_the_host(image: None) -> None:
    """Its gVisor opens files with the same rights as any other sandbox's."""
    gofers = []
    async with launcher() as opened:
        for builds in (True, False):
            spec = SandboxSpec("python", RESOURCES, Isolation.GVISOR, builds)
            async with living(opened, spec) as guest:
                assert (await said(guest, "id -u")).strip() == "0" or not builds
                processes = on_the_host(guest)
                assert len(processes) >= 2
                assert reaching(processes) == []
                gofers += [each for each in processes if FILES in each.command]
    assert len(gofers) == 2
    assert gofers[0] == gofers[1]


async def test_the_probe_sees_a_root_that_is_the_hosts(image: None) -> None:
    """The control: with runc in gVisor's place, a sandbox's root is root on the host."""

    def by_root(
        placement: Placement, resources: Resources, profile: SeccompProfile, host: Host
    ) -> Mapping[str, Any]:
        config = container_config(placement, resources, profile, host)
        # Without this capability, root may not open the sandbox's socket, which is another user's.
        may = {**config["HostConfig"], "CapAdd": ["DAC_OVERRIDE"]}
        return {**config, "User": "0:0", "HostConfig": may}

    spec = SandboxSpec("python", RESOURCES)
    async with launcher(configure=by_root) as opened, living(opened, spec) as guest:
        assert reaching(on_the_host(guest)) != []


async def test_without_gvisor_there_is_no_build(image: None) -> None:
    async with launcher() as opened:
        with pytest.raises(IsolationMissing, match="only gVisor"):
            await opened.launch(
                SandboxOrder(SandboxSpec("python", RESOURCES, Isolation.CONTAINER, builds=True))
            )


REACHES: Mapping[str, str] = {
    "the image's files": "echo x > /etc/debian_version",
    "the supervisor": "echo x > /opt/supervisor/serve.py",
    "the node's folder": "echo x > /run/sandbox/passwd",
    "a disk": "mknod /mnt/d b 8 0 && head -c 1 /mnt/d",
    "the kernel's settings": "echo 1 > /proc/sys/kernel/core_pattern",
    "a network": "python3 -c \"import socket; socket.create_connection(('192.0.2.1', 80), 3)\"",
    "the daemon": "test -S /var/run/docker.sock",
    "the supervisor's memory": "head -c 1 /proc/1/mem",
}


async def test_root_of_a_build_reaches_nothing_beyond_its_sandbox(image: None) -> None:
    """The control: the same root writes where a build does."""
    async with launcher() as opened:
        spec = SandboxSpec("python", RESOURCES, Isolation.GVISOR, builds=True)
        async with living(opened, spec) as guest:
            reached = {
                what: (await said(guest, f"({how}) >/dev/null 2>&1 && echo reached")).strip()
                for what, how in REACHES.items()
            }
            assert reached == dict.fromkeys(REACHES, "")
            assert (await said(guest, "echo x > /mnt/x && echo reached")).strip() == "reached"


async def test_a_build_ends_where_its_disk_and_memory_end(image: None) -> None:
    """Its files are in its memory, and bounded; nothing of them is on the host's disk."""
    async with launcher() as opened:
        spec = SandboxSpec("python", RESOURCES, Isolation.GVISOR, builds=True)
        async with living(opened, spec) as guest:
            wrote = await said(guest, "cd /mnt; for f in x y; do head -c 40M /dev/zero > $f; done")
            assert "No space left on device" in wrote
            facts = await opened.engine.inspect(guest.residence.container_id)
            assert facts is not None
            upper = Path(facts["GraphDriver"]["Data"]["UpperDir"])
            left = await asyncio.to_thread(_bytes_below, upper)
            assert left < 2**20, left


def _bytes_below(folder: Path) -> int:
    return sum(
        (Path(where) / name).lstat().st_size
        for where, _, names in os.walk(folder)
        for name in names
    )
