"""The kernel's counters are found and read in each of its layouts."""

from pathlib import Path

import pytest

from runner.errors import SetupError
from runner.sandbox.cgroups import Cgroups, Counters


def write(root: Path, files: dict[str, str]) -> None:
    """Lay out a control group file system."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_version_2_with_systemd(tmp_path: Path) -> None:
    """One folder for all, named as a scope in our slice."""
    scope = "agentrunner.slice/docker-abc.scope"
    write(
        tmp_path,
        {
            f"{scope}/cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
            f"{scope}/memory.peak": "4096\n",
            f"{scope}/memory.events": "low 0\noom 2\noom_kill 1\n",
            f"{scope}/pids.peak": "7\n",
            f"{scope}/pids.events": "max 3\n",
        },
    )
    groups = Cgroups(version=2, parent="agentrunner.slice", systemd=True, root=tmp_path)
    assert groups.read("abc") == Counters(
        cpu_s=1.5, memory_peak_bytes=4096, pids_peak=7, oom_kills=1, pids_refused=3
    )


def test_version_1_without_systemd(tmp_path: Path) -> None:
    """A folder per controller."""
    write(
        tmp_path,
        {
            "cpuacct/agentrunner/abc/cpuacct.usage": "1500000000\n",
            "memory/agentrunner/abc/memory.max_usage_in_bytes": "4096\n",
            "memory/agentrunner/abc/memory.oom_control": "under_oom 0\noom_kill 1\n",
            "pids/agentrunner/abc/pids.events": "max 3\n",
        },
    )
    groups = Cgroups(version=1, parent="/agentrunner", systemd=False, root=tmp_path)
    assert groups.read("abc") == Counters(
        cpu_s=1.5, memory_peak_bytes=4096, pids_peak=None, oom_kills=1, pids_refused=3
    )


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    """A container that is gone has no counters, and that is no error."""
    groups = Cgroups(version=2, parent="/agentrunner", systemd=False, root=tmp_path)
    assert groups.read("abc") == Counters()


def test_cpu_time_before_the_program_is_taken_off() -> None:
    """The rest is not a sum."""
    later = Counters(cpu_s=1.5, pids_peak=3)
    assert later.since(Counters(cpu_s=0.5)) == Counters(cpu_s=1.0, pids_peak=3)
    assert later.since(Counters()) == later


def test_docker_tells_driver_and_version() -> None:
    """The parent group's name depends on both; no driver means no limits."""
    assert Cgroups.of({"CgroupDriver": "systemd", "CgroupVersion": "2"}).parent.endswith(".slice")
    assert Cgroups.of({"CgroupDriver": "cgroupfs"}).version == 1
    with pytest.raises(SetupError):
        Cgroups.of({"CgroupDriver": "none"})
