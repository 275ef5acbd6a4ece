"""The shipped profile compiles, and allows no call that has been a way out."""

import json
import struct
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

from runner.base.seccomp import Document, compile_filter, load_profile, read_profile
from runner.base.settings import Settings
from runner.words.errors import SetupError

DANGEROUS = [
    "_sysctl",
    "acct",
    "add_key",
    "adjtimex",
    "afs_syscall",
    "bpf",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "clone3",
    "create_module",
    "delete_module",
    "fanotify_init",
    "fanotify_mark",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "lsm_set_self_attr",
    "memfd_secret",
    "migrate_pages",
    "modify_ldt",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "mq_getsetattr",
    "mq_notify",
    "mq_open",
    "mq_timedreceive",
    "mq_timedsend",
    "mq_unlink",
    "msgctl",
    "msgget",
    "msgrcv",
    "msgsnd",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_madvise",
    "process_mrelease",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "seccomp",
    "semctl",
    "semget",
    "semop",
    "semtimedop",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "shmat",
    "shmctl",
    "shmdt",
    "shmget",
    "socketcall",
    "stime",
    "swapoff",
    "swapon",
    "sysfs",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "ustat",
    "vhangup",
    "vm86",
    "vm86old",
    "vmsplice",
]

CONDITIONAL = {
    "clone",
    "ioctl",
    "personality",
    "prctl",
    "prlimit64",
    "socket",
    "socketpair",
    "timer_create",
}


@pytest.fixture(scope="module")
def document() -> Any:
    """Return the shipped profile as it is written."""
    path = Settings().profiles_path / "seccomp" / "default.json"
    return json.loads(path.read_text())


def test_the_shipped_profile_compiles() -> None:
    """The library is the container runtime's own; the profile has a hash for the record."""
    profile = load_profile(Settings().profiles_path)
    assert profile.hash.startswith("sha256:")
    assert "read" in profile.allowed


def test_it_allows_at_most_three_fifths_of_what_dockers_default_does() -> None:
    """The test counts names of native x86-64 calls; ours has none that Docker refuses."""
    text = (Path(__file__).parent.parent / "data" / "docker_default_seccomp.txt").read_text()
    docker = {name for line in text.splitlines() if line[:1] != "#" for name in line.split()}
    ours = load_profile(Settings().profiles_path).allowed
    assert len(docker) == 308
    assert ours - docker == set()
    assert len(ours) <= 0.6 * len(docker)


@pytest.mark.parametrize("architecture", [pyseccomp.Arch.X86_64, pyseccomp.Arch.AARCH64])
def test_the_same_file_compiles_for_both_architectures(tmp_path: Path, architecture: int) -> None:
    """The compiled program first asks for the architecture, which is this one."""
    _, profile = read_profile(Settings().profiles_path / "seccomp" / "default.json")
    with (tmp_path / "filter").open("wb") as file:
        compile_filter(profile, architecture).export_bpf(file)
    program = list(struct.iter_unpack("HBBI", (tmp_path / "filter").read_bytes()))
    assert program[0] == (0x20, 0, 0, 4)  # load seccomp_data.arch
    assert program[1][0] == 0x15  # jump if equal
    audit_arch = {pyseccomp.Arch.X86_64: 0xC000003E, pyseccomp.Arch.AARCH64: 0xC00000B7}
    assert program[1][3] == audit_arch[architecture]


def test_what_only_the_newer_forms_can_do_on_aarch64_is_allowed() -> None:
    """Its table never had open, stat, pipe, dup2, poll or fork, so its C library uses these."""
    needed = (
        "clone dup3 epoll_create1 epoll_pwait eventfd2 faccessat faccessat2 fchmodat fchownat "
        "fstat inotify_init1 linkat mkdirat mknodat newfstatat openat pipe2 ppoll prlimit64 "
        "pselect6 readlinkat renameat renameat2 signalfd4 statx symlinkat timerfd_create "
        "unlinkat utimensat wait4"
    )
    assert set(needed.split()) <= load_profile(Settings().profiles_path).allowed
    for name in needed.split():
        assert pyseccomp.resolve_syscall(pyseccomp.Arch.AARCH64, name) >= 0, name


def test_an_argument_tested_twice_is_refused(document: Any, tmp_path: Path) -> None:
    """The runtime reads it as "or", and a human reader as "and"."""
    test = {"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}
    entry = {"comment": "x", "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [test, test]}
    path = tmp_path / "twice.json"
    path.write_text(json.dumps({**document, "syscalls": [entry]}))
    with pytest.raises(SetupError, match="twice"):
        read_profile(path)


def test_for_gvisor_calls_with_an_answer_of_their_own_are_left_to_its_kernel(
    document: Any,
) -> None:
    """The filter of gVisor cannot answer ENOSYS, but its kernel does so by itself."""
    changed = Document.model_validate(
        json.loads(load_profile(Settings().profiles_path).for_gvisor())
    )
    before = Document.model_validate(document)
    answered = {n for e in before.entries if not e.is_allowed for n in e.names}
    io_uring = {"io_uring_enter", "io_uring_register", "io_uring_setup"}
    # In gVisor's table, pselect6 has another name.
    assert changed.allowed - before.allowed == answered - io_uring | {"pselect"}
    assert all(entry.is_allowed for entry in changed.entries)


def test_no_dangerous_call_is_allowed() -> None:
    """Namespaces, mounts, tracing, keys, BPF, io_uring, handles, modules, clocks, old IPC."""
    assert load_profile(Settings().profiles_path).allowed.intersection(DANGEROUS) == set()


def test_calls_with_dangerous_arguments_are_allowed_only_by_argument(document: Any) -> None:
    """None of them has an unconditional rule, which would override the others."""
    unconditional = {
        name
        for entry in document["syscalls"]
        if entry["action"] == "SCMP_ACT_ALLOW" and not entry.get("args")
        for name in entry["names"]
    }
    assert unconditional & CONDITIONAL == set()


def test_every_entry_has_a_reason_and_every_allowed_name_exists(document: Any) -> None:
    """A misspelt name would be left out silently."""
    here = pyseccomp.system_arch()
    for entry in document["syscalls"]:
        assert len(entry["comment"]) > 5
        if entry["action"] == "SCMP_ACT_ALLOW":
            missing = [n for n in entry["names"] if pyseccomp.resolve_syscall(here, n) == -1]
            assert set(missing) <= {"fchmodat2", "map_shadow_stack"}, missing


def test_no_call_is_named_twice_without_arguments(document: Any) -> None:
    """So each call has one reason."""
    names = [
        name for entry in document["syscalls"] if not entry.get("args") for name in entry["names"]
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "change",
    [
        {"defaultAction": "SCMP_ACT_ALLOW"},
        {"archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}]},
        {"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]},
        {"syscalls": [{"comment": "x", "names": [], "action": "SCMP_ACT_ALLOW"}]},
        {"syscalls": [{"comment": "x", "names": ["read"], "action": "SCMP_ACT_LOG"}]},
        {"unknown": 1},
    ],
    ids=["allows by default", "second architecture", "no reason", "no name", "action", "field"],
)
def test_a_profile_of_another_shape_is_refused(
    document: Any, tmp_path: Path, change: dict[str, Any]
) -> None:
    """It is refused before any sandbox starts, with the file's name."""
    (tmp_path / "seccomp").mkdir()
    path = tmp_path / "seccomp" / "default.json"
    path.write_text(json.dumps({**document, **change}))
    with pytest.raises(SetupError, match=str(path)):
        load_profile(tmp_path)


def test_a_missing_or_broken_profile_is_refused(tmp_path: Path) -> None:
    """A missing file and invalid JSON give different errors."""
    with pytest.raises(SetupError, match="cannot be read"):
        load_profile(tmp_path)
    (tmp_path / "seccomp").mkdir()
    (tmp_path / "seccomp" / "default.json").write_text("{")
    with pytest.raises(SetupError, match="not valid"):
        load_profile(tmp_path)
