"""The kernel's counters are found and read in each of its layouts."""

from pathlib import Path

import pytest

from runner.sandbox.observe.cgroups import Cgroups, Counters
from runner.words.errors import SetupError


def write(root: Path, files: dict[str, str]) -> None:
    """Lay out a control group file system."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_version_2_with_systemd(tmp_path: Path) -> None:
    """All counters are in one folder, named as a scope in our slice."""
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
    """There is a folder per controller."""
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


@pytest.mark.parametrize(
    ("version", "file", "usual", "less"),
    [(1, "cpu/agentrunner/cpu.shares", "1024", "256"), (2, "agentrunner/cpu.weight", "100", "25")],
)
def test_all_sandboxes_together_weigh_less_than_a_service(
    tmp_path: Path, version: int, file: str, usual: str, less: str
) -> None:
    """The weight is set once, and again if something resets it; no group is created."""
    groups = Cgroups(version=version, parent="/agentrunner", systemd=False, root=tmp_path)
    assert not groups.weigh()
    write(tmp_path, {file: usual})
    assert groups.weigh()
    assert (tmp_path / file).read_text() == less
    assert not groups.weigh()


@pytest.mark.parametrize(
    ("version", "file", "usual", "parts"),
    [
        (1, "cpu/agentrunner/abc/cpu.shares", "1024", {1: "1024", 50: "20", 5000: "2"}),
        (2, "agentrunner/abc/cpu.weight", "100", {1: "100", 50: "2", 5000: "1"}),
    ],
)
def test_a_sandbox_weighs_one_of_so_many_parts(
    tmp_path: Path, version: int, file: str, usual: str, parts: dict[int, str]
) -> None:
    """It is never less than the kernel permits, and is written only if it changes."""
    groups = Cgroups(version=version, parent="/agentrunner", systemd=False, root=tmp_path)
    assert not groups.set_weight("abc", 2)
    write(tmp_path, {file: usual})
    for number, wanted in parts.items():
        groups.set_weight("abc", number)
        assert (tmp_path / file).read_text() == wanted
        assert not groups.set_weight("abc", number)


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    """A container that is gone has no counters, and that is no error."""
    groups = Cgroups(version=2, parent="/agentrunner", systemd=False, root=tmp_path)
    assert groups.read("abc") == Counters()


def test_cpu_time_before_the_program_is_taken_off() -> None:
    """The other values are not sums."""
    later = Counters(cpu_s=1.5, pids_peak=3)
    assert later.since(Counters(cpu_s=0.5)) == Counters(cpu_s=1.0, pids_peak=3)
    assert later.since(Counters()) == later


def test_docker_tells_driver_and_version() -> None:
    """The parent group's name depends on both; no driver means no limits."""
    assert Cgroups.of({"CgroupDriver": "systemd", "CgroupVersion": "2"}).parent.endswith(".slice")
    assert Cgroups.of({"CgroupDriver": "cgroupfs"}).version == 1
    with pytest.raises(SetupError):
        Cgroups.of({"CgroupDriver": "none"})


HOST_CONFIG = {
    "Memory": 2**27,
    "MemorySwap": 2**27,
    "KernelMemoryTCP": 2**23,
    "PidsLimit": 65,
}


def test_limits_are_set_back_in_version_2(tmp_path: Path) -> None:
    """Only what systemd overwrote; limits that the kernel lacks are skipped."""
    group = "agentrunner.slice/docker-abc.scope"
    write(
        tmp_path,
        {
            f"{group}/memory.max": "134217728\n",
            f"{group}/memory.swap.max": "max\n",
            f"{group}/pids.max": "65\n",
        },
    )
    groups = Cgroups(version=2, parent="agentrunner.slice", systemd=True, root=tmp_path)
    limits = groups.limits(HOST_CONFIG)
    assert limits == {"memory.max": 2**27, "memory.swap.max": 0, "pids.max": 65}
    assert groups.lives("abc")
    assert groups.set_limits("abc", limits) == ["memory.swap.max"]
    assert (tmp_path / group / "memory.swap.max").read_text() == "0"
    assert groups.set_limits("abc", limits) == []
    (tmp_path / group / "memory.swap.max").unlink()
    assert groups.set_limits("abc", limits) == []


def test_limits_are_set_back_in_version_1(tmp_path: Path) -> None:
    """There, memory and swap are counted together, and sockets separately."""
    group = "agentrunner/abc"
    write(
        tmp_path,
        {
            f"memory/{group}/memory.limit_in_bytes": "134217728\n",
            f"memory/{group}/memory.memsw.limit_in_bytes": "9223372036854771712\n",
            f"memory/{group}/memory.kmem.tcp.limit_in_bytes": "9223372036854771712\n",
            f"pids/{group}/pids.max": "max\n",
        },
    )
    groups = Cgroups(version=1, parent="/agentrunner", systemd=False, root=tmp_path)
    assert groups.set_limits("abc", groups.limits(HOST_CONFIG)) == [
        "memory.memsw.limit_in_bytes",
        "pids.max",
        "memory.kmem.tcp.limit_in_bytes",
    ]
    assert (tmp_path / f"pids/{group}/pids.max").read_text() == "65"


def test_a_limit_that_was_not_asked_for_is_not_set(tmp_path: Path) -> None:
    """Security checks take single limits away."""
    groups = Cgroups(version=2, parent="/agentrunner", systemd=False, root=tmp_path)
    assert groups.limits({"Memory": 0, "MemorySwap": 0, "PidsLimit": -1}) == {}
    assert groups.limits({"Memory": 2**27, "MemorySwap": -1, "PidsLimit": -1}) == {
        "memory.max": 2**27
    }


def test_a_container_that_is_gone_has_no_limits_to_set(tmp_path: Path) -> None:
    """It may go while the keeper looks."""
    groups = Cgroups(version=2, parent="/agentrunner", systemd=False, root=tmp_path)
    assert not groups.lives("abc")
    assert groups.set_limits("abc", groups.limits(HOST_CONFIG)) == []
