"""The complete configuration of a sandbox's container, so that a change is a decision."""

from dataclasses import replace
from pathlib import Path

import pytest

from runner.base.seccomp import SeccompProfile
from runner.sandbox.engine.spec import Host, Placement, container_config
from runner.words.errors import IsolationMissing
from runner.words.resources import Resources
from runner.words.sandbox import Isolation

RESOURCES = Resources(cpu=1.5, memory_mb=256, pids=64, disk_mb=128)
PROFILE = SeccompProfile(name="default", json='{"the": "profile"}', hash="", allowed=frozenset())
PLACEMENT = Placement("sha256:image", Path("/state/sandboxes/1"), 70_007, {"runner.tenant": "t"})


def test_the_whole_configuration() -> None:
    """It covers exactly the fields that reach Docker."""
    size = 128 * 2**20
    assert container_config(PLACEMENT, RESOURCES, PROFILE, Host(4, "/agentrunner")) == {
        "Image": "sha256:image",
        "Entrypoint": ["/usr/bin/python3", "/opt/supervisor/__main__.py"],
        "Cmd": [],
        "User": "70007:70007",
        "WorkingDir": "/workspace",
        "Env": [
            "PATH=/workspace/.local/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME=/workspace",
            "NPM_CONFIG_PREFIX=/workspace/.local",
            "LANG=C.UTF-8",
            "PIP_DISABLE_PIP_VERSION_CHECK=1",
            "NPM_CONFIG_AUDIT=false",
            "NPM_CONFIG_FUND=false",
            "NPM_CONFIG_UPDATE_NOTIFIER=false",
            "NPM_CONFIG_CACHE=/tmp/.cache/npm",
            "XDG_CACHE_HOME=/tmp/.cache",
            "MPLCONFIGDIR=/tmp/.cache/matplotlib",
            "MPLBACKEND=Agg",
            "PYTHONDONTWRITEBYTECODE=1",
        ],
        "Hostname": "sandbox",
        "Domainname": "",
        "Labels": {"runner.tenant": "t"},
        "Tty": False,
        "OpenStdin": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "NetworkDisabled": True,
        "HostConfig": {
            "Runtime": "runc",
            "Privileged": False,
            "CapDrop": ["ALL"],
            "CapAdd": [],
            "GroupAdd": [],
            "SecurityOpt": ["no-new-privileges", 'seccomp={"the": "profile"}'],
            "Devices": [],
            "MaskedPaths": [
                "/proc/acpi",
                "/proc/asound",
                "/proc/bus",
                "/proc/cmdline",
                "/proc/config.gz",
                "/proc/fs",
                "/proc/interrupts",
                "/proc/irq",
                "/proc/kallsyms",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/modules",
                "/proc/pressure",
                "/proc/sched_debug",
                "/proc/scsi",
                "/proc/sys/kernel/random/boot_id",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/sys/class/dmi",
                "/sys/devices/virtual/dmi",
                "/sys/devices/virtual/powercap",
                "/sys/firmware",
                "/sys/fs/cgroup",
                "/sys/kernel",
            ],
            "ReadonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
            "NetworkMode": "none",
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "PidMode": "",
            "UTSMode": "",
            "UsernsMode": "",
            "ReadonlyRootfs": True,
            "Tmpfs": {
                "/workspace": "rw,nosuid,nodev,exec,mode=0700,uid=70007,gid=70007,"
                f"size={size},nr_inodes=8192",
                "/tmp": f"rw,nosuid,nodev,exec,mode=1777,size={size},nr_inodes=8192",  # noqa: S108
                "/dev/shm": "rw,nosuid,nodev,noexec,mode=1777,"  # noqa: S108
                f"size={64 * 2**20},nr_inodes=4096",
                "/dev/mqueue": "ro,noexec,nosuid,nodev,size=4k,nr_inodes=1,mode=0555",
            },
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "/state/sandboxes/1",
                    "Target": "/run/sandbox",
                    "ReadOnly": True,
                    "BindOptions": {"Propagation": "rprivate"},
                },
                {
                    "Type": "volume",
                    "Target": "/dev/pts",
                    "VolumeOptions": {
                        "NoCopy": True,
                        "DriverConfig": {
                            "Name": "local",
                            "Options": {
                                "type": "devpts",
                                "device": "devpts",
                                "o": "newinstance,nosuid,noexec,ptmxmode=0666,mode=0620,gid=5,"
                                "max=16",
                            },
                        },
                    },
                },
            ],
            "Memory": 256 * 2**20,
            "MemorySwap": 256 * 2**20,
            "KernelMemoryTCP": 16 * 2**20,
            "NanoCpus": 1_500_000_000,
            "PidsLimit": 65,
            "OomKillDisable": False,
            "Ulimits": [
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "fsize", "Soft": size, "Hard": size},
                {"Name": "memlock", "Soft": 65536, "Hard": 65536},
                {"Name": "msgqueue", "Soft": 0, "Hard": 0},
                {"Name": "nofile", "Soft": 1024, "Hard": 4096},
            ],
            "CgroupParent": "/agentrunner",
            "LogConfig": {"Type": "none", "Config": {}},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": False,
            "Init": False,
        },
    }


def test_more_cpu_than_the_host_has_is_all_of_it() -> None:
    """Docker refuses to start a container that asks for more."""
    config = container_config(PLACEMENT, RESOURCES, PROFILE, Host(1, "/agentrunner"))
    assert config["HostConfig"]["NanoCpus"] == 10**9


def test_root_builds_a_template_only_in_gvisor() -> None:
    """All other flags are as for any sandbox; without gVisor, root would be the host's."""
    usual = replace(PLACEMENT, isolation=Isolation.GVISOR)
    profile = replace(PROFILE, json='{"syscalls": []}')
    host = Host(4, "/agentrunner")
    before = container_config(usual, RESOURCES, profile, host)
    config = container_config(replace(usual, builds=True), RESOURCES, profile, host)
    assert {name for name in config if config[name] != before[name]} == {"User", "HostConfig"}
    assert config["User"] == "0:0"
    given, then = config["HostConfig"], before["HostConfig"]
    changed = {name for name in given if given[name] != then[name]}
    assert changed == {"CapAdd", "SecurityOpt", "Tmpfs"}
    assert given["Runtime"] == "runsc"
    assert set(given["CapAdd"]).isdisjoint({"NET_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYS_RAWIO"})
    assert set(given["Tmpfs"].items()) - set(then["Tmpfs"].items()) == {
        ("/mnt", f"rw,nosuid,nodev,exec,mode=0700,size={128 * 2**20},nr_inodes=8192")
    }
    with pytest.raises(IsolationMissing, match="only gVisor"):
        container_config(replace(PLACEMENT, builds=True), RESOURCES, profile, host)
