"""Masks that a sandbox shares with nobody, for a runtime whose own masks are shared."""

import stat
from pathlib import Path

from runner.base.seccomp import SeccompProfile
from runner.sandbox.engine.masks import MASKED, RUNTIMES_OWN, Masks, own_masks
from runner.sandbox.engine.spec import Host, Placement, container_config
from runner.words.resources import Resources
from runner.words.sandbox import CRUN, Isolation

RESOURCES = Resources(cpu=1.5, memory_mb=256, pids=64, disk_mb=128)
PROFILE = SeccompProfile(name="default", json='{"syscalls": []}', hash="", allowed=frozenset())
PLACE = Path("/state/sandboxes/1")
MASKS = Masks(("/proc/kcore",), ("/proc/keys",), ("/proc/acpi",))


def test_what_this_kernel_has_is_mounted_and_all_else_left_to_the_runtime(tmp_path: Path) -> None:
    """So a path that appears later is masked, too."""
    (tmp_path / "proc/acpi").mkdir(parents=True)
    (tmp_path / "proc/keys").touch()
    found = own_masks(tmp_path)
    assert (found.files, found.folders) == (("/proc/keys",), ("/proc/acpi",))
    assert {*found.by_runtime, *found.files, *found.folders} == set(MASKED)
    assert len(found.by_runtime) == len(MASKED) - 2


def test_cruns_configuration_differs_in_runtime_masks_and_input_alone() -> None:
    placement = Placement("sha256:image", PLACE, 70_007, {})
    runc = container_config(placement, RESOURCES, PROFILE, Host(4, "/agentrunner"))
    host = Host(4, "/agentrunner", CRUN, MASKS)
    crun = container_config(placement, RESOURCES, PROFILE, host)
    changed = {
        name: value for name, value in crun["HostConfig"].items()
        if value != runc["HostConfig"][name]
    }  # fmt: skip
    assert {**crun, "HostConfig": None} == {**runc, "HostConfig": None, "OpenStdin": True}
    assert changed == {
        "Runtime": "crun",
        "MaskedPaths": ["/proc/kcore"],
        "Tmpfs": {
            **runc["HostConfig"]["Tmpfs"],
            "/proc/acpi": "ro,nosuid,nodev,noexec,size=4k,nr_inodes=1,mode=0555",
        },
        "Mounts": [
            *runc["HostConfig"]["Mounts"],
            {
                "Type": "bind",
                "Source": "/state/sandboxes/1/masked",
                "Target": "/proc/keys",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rprivate"},
            },
        ],
    }


def test_gvisor_is_started_as_if_there_were_no_crun() -> None:
    placement = Placement("sha256:image", PLACE, 70_007, {}, Isolation.GVISOR)
    crun, runc = (
        container_config(placement, RESOURCES, PROFILE, host)
        for host in (Host(4, "/agentrunner", CRUN, MASKS), Host(4, "/agentrunner"))
    )
    assert crun == runc
    assert crun["HostConfig"]["Runtime"] == "runsc"


def test_the_mask_is_an_empty_file_that_nobody_may_write(tmp_path: Path) -> None:
    """Where the runtime makes all masks, there is none."""
    RUNTIMES_OWN.write(tmp_path)
    assert list(tmp_path.iterdir()) == []
    MASKS.write(tmp_path)
    (written,) = tmp_path.iterdir()
    assert (written.name, written.read_bytes()) == ("masked", b"")
    assert stat.S_IMODE(written.stat().st_mode) == 0o444
