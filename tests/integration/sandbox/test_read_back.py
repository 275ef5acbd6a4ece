"""The isolation read back from a running sandbox shows what is there, and what is not."""

from collections.abc import Callable
from typing import Any

import pytest

from runner.sandbox.engine.spec import container_config
from runner.sandbox.observe.isolation import EffectiveIsolation
from runner.verify.controls import unmasked
from tests.support.sandboxes import MB, Bench

Change = Callable[[dict[str, Any]], None]


async def read(bench: Bench, change: Change = lambda _: None) -> EffectiveIsolation:
    """Return the isolation of a sandbox whose configuration was changed."""

    def configure(*args: Any) -> dict[str, Any]:
        config = container_config(*args)
        change(config)
        return config

    bench.launcher.maker.configure = configure
    async with bench.sandbox() as sandbox:
        assert sandbox.container.isolation is not None
        return sandbox.container.isolation


async def test_what_is_there_is_read(bench: Bench) -> None:
    """The values are the kernel's."""
    found = await read(bench)
    assert found.memory_bytes == bench.limits.memory_mb * MB
    assert found.processes == bench.limits.pids + 1
    assert found.cpus == bench.limits.cpu
    assert found.resource_limits["core_bytes"] == "0"
    assert any(mount.startswith("/workspace tmpfs rw,nosuid,nodev") for mount in found.mounts)


def host(**changes: Any) -> Change:
    """Change fields of the host configuration."""
    return lambda config: config["HostConfig"].update(changes)


def shared_name(config: dict[str, Any]) -> None:
    """Share the host's name; a name of its own needs a namespace of its own."""
    del config["Hostname"]
    config["HostConfig"]["UTSMode"] = "host"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("capabilities", host(CapDrop=[])),
        ("no_new_privileges", host(SecurityOpt=[])),
        ("seccomp_mode", host(SecurityOpt=["no-new-privileges", "seccomp=unconfined"])),
        ("groups", host(GroupAdd=["1234"])),
        ("own_namespaces", host(IpcMode="host")),
        ("own_namespaces", shared_name),
        ("own_namespaces", host(CgroupnsMode="host")),
        ("read_only_root", host(ReadonlyRootfs=False)),
        ("resource_limits", host(Ulimits=[])),
        ("memory_bytes", host(Memory=0, MemorySwap=0)),
        ("swap_bytes", host(MemorySwap=-1)),
        ("socket_bytes", host(KernelMemoryTCP=0)),
        ("processes", host(PidsLimit=-1)),
        ("cpus", host(NanoCpus=0)),
        ("mounts", unmasked),
    ],
)
async def test_a_missing_control_is_seen(bench: Bench, field: str, change: Change) -> None:
    """So a receipt states what was there and not what was requested."""
    assert getattr(await read(bench, change), field) != getattr(await read(bench), field)
