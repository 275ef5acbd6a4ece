"""`runner doctor` reports what a host offers, as facts with advice."""

import os
from pathlib import Path
from typing import Any

import pytest

from runner.base.settings import Settings
from runner.cli.host import Finding, Status, _kernel, _null, _swap, _terminals, _users, examine

DOCKER: dict[str, Any] = {
    "info": {
        "Driver": "overlay2",
        "CgroupDriver": "systemd",
        "CgroupVersion": "2",
        "SecurityOptions": ["name=apparmor", "name=seccomp,profile=default"],
        "Runtimes": {
            "runc": {"path": "runc"},
            "runsc": {
                "path": "/usr/bin/runsc",
                "runtimeArgs": ["--host-uds=open", "--network=none", "--oci-seccomp"],
            },
        },
        "MemoryLimit": True,
        "SwapLimit": True,
        "PidsLimit": True,
        "CpuCfsQuota": True,
    },
    "version": {
        "Version": "28.5.2",
        "ApiVersion": "1.51",
        "Components": [{"Name": "Engine"}, {"Name": "runc", "Version": "1.3.3"}],
    },
}


def findings(tmp_path: Path, **changes: dict[str, Any]) -> dict[str, Finding]:
    """Return the findings by name, for a Docker that differs from a good one by `changes`."""
    docker = {part: {**DOCKER[part], **changes.get(part, {})} for part in DOCKER}
    found = examine(Settings(state_dir=tmp_path), docker)
    return {finding.name: finding for finding in found}


def test_a_good_docker_gets_no_advice(tmp_path: Path) -> None:
    found = findings(tmp_path)
    for name in ("Docker Engine", "runc", "seccomp in Docker", "gVisor"):
        assert found[name].status is Status.OK
        assert found[name].advice == ""


def test_a_storage_driver_that_follows_links_of_other_layers_is_told(tmp_path: Path) -> None:
    found = findings(tmp_path, info={"Driver": "vfs"})["storage, cgroups"]
    assert found.status is Status.WARN
    assert "overlay2" in found.advice
    assert findings(tmp_path)["storage, cgroups"].status is Status.OK


def test_ids_of_sandboxes_that_somebody_else_has_are_told(tmp_path: Path) -> None:
    """They are users of the host, or ranges that users may map (subuid(5))."""
    settings = Settings(state_dir=tmp_path, sandbox_uids="70000:4096")
    etc = tmp_path / "etc"
    etc.mkdir()
    assert _users(settings, tmp_path).status is Status.OK
    (etc / "subuid").write_text("ann:100000:65536\n")
    assert _users(settings, tmp_path).status is Status.OK
    (etc / "subuid").write_text("ann:100000:65536\nbob:8192:65536\n")
    found = _users(settings, tmp_path)
    assert found.status is Status.WARN
    assert "bob (subuid)" in found.value
    assert "ann" not in found.value
    everybody = settings.model_copy(update={"sandbox_uids": "1:70000"})
    assert "nobody" in _users(everybody, tmp_path).value


def test_too_few_pseudo_terminals_are_told(tmp_path: Path) -> None:
    """Each sandbox that may exist at once needs sixteen."""
    kernel = tmp_path / "proc/sys/kernel/pty"
    kernel.mkdir(parents=True)
    (kernel / "reserve").write_text("1024\n")
    settings = Settings(state_dir=tmp_path, slots=4, sandboxes=30, pool_max=10)
    for most, status in ((2048, Status.OK), (2047, Status.WARN)):
        (kernel / "max").write_text(f"{most}\n")
        found = _terminals(settings, tmp_path)
        assert found.status is status
    assert "kernel.pty.max=2048" in found.advice


def test_swap_that_is_on_is_told() -> None:
    """If systemd manages control groups, a reload of its units lifts the limit, too."""
    others = {**DOCKER, "info": {**DOCKER["info"], "CgroupDriver": "cgroupfs"}}
    for docker in (DOCKER, others, None):
        assert _swap(docker, 0).status is Status.OK
        on = _swap(docker, 2**30)
        assert (on.status, on.value) == (Status.WARN, "1.0 GiB")
        assert on.advice.startswith("turn it off (swapoff)")
        assert ("daemon-reload" in on.advice) is (docker is DOCKER)


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("1.1.5+ds1", Status.WARN),
        ("1.2.7", Status.WARN),
        ("1.2.8", Status.OK),
        ("1.2.10", Status.OK),
        ("1.3.2", Status.WARN),
        ("1.3.3", Status.OK),
        ("1.4.0-rc.1", Status.OK),
        ("2.0.0", Status.OK),
        ("unknown", Status.WARN),
    ],
)
def test_a_runc_with_known_escapes_is_named(tmp_path: Path, version: str, status: Status) -> None:
    components = [{"Name": "runc", "Version": version}]
    assert findings(tmp_path, version={"Components": components})["runc"].status is status


@pytest.mark.parametrize(
    ("runtimes", "advice"),
    [
        ({"runc": {}}, "apt-get install runsc"),
        ({"runsc": {"path": "runsc"}}, "--host-uds=open --network=none --oci-seccomp"),
        ({"runsc": {"runtimeArgs": ["--host-uds=open", "--network=none"]}}, "--oci-seccomp"),
        ({"runsc": {"runtimeArgs": ["--ignore-cgroups"]}}, "no limit"),
    ],
    ids=["not there", "without arguments", "without the profile", "without limits"],
)
def test_what_gvisor_lacks_is_told_with_the_way_to_it(
    tmp_path: Path, runtimes: dict[str, Any], advice: str
) -> None:
    found = findings(tmp_path, info={"Runtimes": runtimes})["gVisor"]
    assert found.status is Status.WARN
    assert advice in found.advice


def test_a_docker_without_seccomp_is_not_fit(tmp_path: Path) -> None:
    assert findings(tmp_path, info={"SecurityOptions": []})["seccomp in Docker"].status is (
        Status.MISSING
    )


@pytest.mark.parametrize(
    ("capability", "name"),
    [("MemoryLimit", "memory limit"), ("PidsLimit", "pids limit"), ("CpuCfsQuota", "CPU limit")],
)
def test_a_limit_the_kernel_does_not_enforce_is_named(
    tmp_path: Path, capability: str, name: str
) -> None:
    assert findings(tmp_path, info={capability: False})[name].status is Status.WARN


def test_a_silent_docker_is_missing_and_everything_else_is_still_told(tmp_path: Path) -> None:
    found = {each.name: each for each in examine(Settings(state_dir=tmp_path), None)}
    assert found["Docker"].status is Status.MISSING
    assert "apt-get install docker.io" in found["Docker"].advice
    assert {"kernel", "cgroup version", "seccomp", "memory", "disk"} <= set(found)


def test_a_state_folder_that_others_may_write_is_named(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    settings.run_dir.mkdir()
    settings.run_dir.chmod(0o777)
    found = {each.name: each for each in examine(settings, None)}
    assert found["state folder"].status is Status.WARN
    settings.run_dir.chmod(0o711)
    found = {each.name: each for each in examine(settings, None)}
    assert found["state folder"].status is Status.OK


def test_profiles_and_sizes_are_shown_or_their_fault_is(tmp_path: Path) -> None:
    found = findings(tmp_path)
    assert found["sizes"].value == "nano, small, medium, large"
    assert found["seccomp profile"].status is Status.OK
    (tmp_path / "seccomp").mkdir()
    (tmp_path / "seccomp" / "default.json").write_text("{")
    settings = Settings(state_dir=tmp_path, profiles_dir=tmp_path)
    found = {each.name: each for each in examine(settings, None)}
    assert found["seccomp profile"].status is Status.MISSING
    assert "default.json" in found["seccomp profile"].value
    assert found["sizes"].status is Status.MISSING


def test_whatever_is_not_fine_comes_with_advice(tmp_path: Path) -> None:
    for docker in (None, DOCKER):
        for finding in examine(Settings(state_dir=tmp_path), docker):
            assert finding.status is Status.OK or finding.advice


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("writable", [True, False])
def test_a_user_who_may_not_set_the_weight_of_sandboxes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, *, writable: bool
) -> None:
    """This holds for both versions of control groups; a read-only mount is one reason."""
    groups = tmp_path / "sys/fs/cgroup"
    (groups / "cpu").mkdir(parents=True)
    if version == 2:
        (groups / "cgroup.controllers").touch()
    folder = groups if version == 2 else groups / "cpu"
    monkeypatch.setattr("os.access", lambda path, _: writable or Path(path) != folder)
    (found,) = (each for each in _kernel(tmp_path) if each.name == "weight of sandboxes")
    assert found.status is (Status.OK if writable else Status.WARN)
    assert (str(folder) in found.advice) is not writable


def test_a_null_device_that_is_not_roots_is_told(tmp_path: Path) -> None:
    null = tmp_path / "null"
    null.touch()
    assert _null(null).status is Status.OK
    os.chown(null, 65534, 65534)
    found = _null(null)
    assert found.status is Status.WARN
    assert f"chown root:root {null}" in found.advice
