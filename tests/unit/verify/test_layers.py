"""Other layers of a host that stop attacks: found by its facts, and never an excuse."""

from pathlib import Path

import pytest

from runner.verify.checks import every_check
from runner.verify.layers import APPARMOR, SELINUX, Layer, layers
from runner.verify.suite import held_by_the_host

DEBIAN_13 = {"SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"]}
HERE = {"SecurityOptions": ["name=seccomp,profile=builtin"]}


def test_a_policy_that_docker_applies_is_lowered_in_the_container(tmp_path: Path) -> None:
    """It replaces one of the same kind, and options that are no policy stay."""
    assert layers(DEBIAN_13, tmp_path) == (APPARMOR,)
    assert layers({"SecurityOptions": ["name=selinux"]}, tmp_path) == (SELINUX,)
    assert layers(HERE, tmp_path) == ()
    assert layers({}, tmp_path) == ()
    config = {"HostConfig": {"SecurityOpt": ["no-new-privileges", "apparmor=mine", "seccomp={}"]}}
    assert APPARMOR.lower is not None
    APPARMOR.lower(config)
    assert config["HostConfig"]["SecurityOpt"] == [
        "no-new-privileges", "seccomp={}", "apparmor=unconfined",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "text", "check"),
    [
        ("sys/kernel/security/lockdown", "none [integrity] confidentiality", "syscalls.kexec_load"),
        ("sys/kernel/security/lockdown", "none integrity [confidentiality]",
         "proc.masked.proc-kcore"),
        ("proc/sys/kernel/kexec_load_disabled", "1", "syscalls.kexec_file_load"),
        ("proc/sys/kernel/modules_disabled", "1", "syscalls.init_module"),
        ("proc/sys/user/max_user_namespaces", "0", "syscalls.unshare.user"),
        ("proc/sys/user/max_mnt_namespaces", "0", "syscalls.clone.mount"),
    ],
)  # fmt: skip
def test_a_setting_of_the_kernel_is_named_for_the_checks_that_it_holds(
    tmp_path: Path, path: str, text: str, check: str
) -> None:
    """It is named for these checks only, and only if the setting is on."""
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(f"{text}\n")
    found = layers(HERE, tmp_path)
    assert held_by_the_host(check, found).startswith("held by ")
    assert held_by_the_host("syscalls.add_key", found) == ""
    file.write_text("[none] integrity confidentiality\n" if "lockdown" in path else off(path))
    assert layers(HERE, tmp_path) == ()


def off(path: str) -> str:
    """Return what such a file holds by default."""
    return "31231\n" if "namespaces" in path else "0\n"


def test_layers_name_checks_that_there_are(tmp_path: Path) -> None:
    for path in ("sys/kernel/security", "proc/sys/kernel", "proc/sys/user"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "sys/kernel/security/lockdown").write_text("none integrity [confidentiality]")
    for name in ("kexec_load_disabled", "modules_disabled"):
        (tmp_path / "proc/sys/kernel" / name).write_text("1")
    for name in ("user", "mnt", "net", "pid", "ipc", "uts", "cgroup", "time"):
        (tmp_path / f"proc/sys/user/max_{name}_namespaces").write_text("0")
    known = {check.id for check in every_check()}
    found = layers(HERE, tmp_path)
    assert len(found) == 12
    assert {id_ for layer in found for id_ in layer.holds} <= known | {"syscalls.clone.time"}


def test_a_layer_that_can_be_lowered_is_no_excuse() -> None:
    """It was lowered, and the probe was still stopped: the check is broken."""
    assert held_by_the_host("proc.read-only.sysrq-trigger", [APPARMOR]) == ""
    assert held_by_the_host("x", [Layer("a"), Layer("b")]) == "held by a and b of this host, too"
