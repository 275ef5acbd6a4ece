"""The system calls a sandbox may make: read, hashed and compiled before any sandbox starts.

A profile is an allowlist in Docker's JSON format; its entries say why they are there. The runtime
applies it before any program of a tenant runs. If a profile does not compile, that is a SetupError,
so no sandbox ever starts with only a part of it.
"""

import hashlib
import json
import socket
from dataclasses import dataclass, field
from errno import EPERM
from pathlib import Path
from typing import Any

import pyseccomp
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from runner.words.errors import SetupError

_OPERATORS = {
    "SCMP_CMP_NE": pyseccomp.NE,
    "SCMP_CMP_LT": pyseccomp.LT,
    "SCMP_CMP_LE": pyseccomp.LE,
    "SCMP_CMP_EQ": pyseccomp.EQ,
    "SCMP_CMP_GE": pyseccomp.GE,
    "SCMP_CMP_GT": pyseccomp.GT,
    "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ,
}
_UNKNOWN = -1
_ALLOW = "SCMP_ACT_ALLOW"
_ERRNO = "SCMP_ACT_ERRNO"
_NETLINK_AUDIT = 9
"""The protocol of netlink(7) by which changes of users are put on the kernel's record."""
_GVISORS = {"pselect6": "pselect"}
"""Names of system calls in gVisor's own table (pkg/sentry/syscalls/linux), where they differ."""
_ROOTS = (
    *("capget", "capset", "chroot", "mknod", "mount", "pivot_root", "prctl", "umount2"),
    *("setfsgid", "setfsuid", "setgid", "setgroups", "setregid", "setresgid", "setresuid"),
    *("setreuid", "setuid", "fsetxattr", "lsetxattr", "setxattr"),
)
"""System calls that root needs to build a template, beyond what every program may call."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Argument(_Strict):
    """A test of one argument, as in seccomp_rule_add(3)."""

    index: int = Field(ge=0, le=5)
    value: int
    value_two: int = Field(alias="valueTwo")
    op: str


class Entry(_Strict):
    """Some system calls, how the filter answers them, and why."""

    comment: str = Field(min_length=1)
    names: list[str] = Field(min_length=1)
    action: str = Field(pattern=f"^({_ALLOW}|{_ERRNO})$")
    errno_ret: int = Field(alias="errnoRet", default=1, ge=1, le=4095)
    args: list[Argument] = Field(default_factory=list, max_length=6)

    @property
    def is_allowed(self) -> bool:
        """Whether calls that pass the tests are permitted; otherwise they get `errno_ret`."""
        return self.action == _ALLOW

    @field_validator("args")
    @classmethod
    def _one_test_each(cls, args: list[Argument]) -> list[Argument]:
        # All tests must pass; with two tests of one argument, runc accepts either of them.
        if len({argument.index for argument in args}) != len(args):
            raise ValueError("an argument is tested twice in one entry")
        return args


class _Architecture(_Strict):
    architecture: str
    sub_architectures: list[str] = Field(alias="subArchitectures", max_length=0)


class Document(_Strict):
    """Refuses by default, for one architecture only: 32-bit entries would be a way around it."""

    default_action: str = Field(alias="defaultAction", pattern=f"^{_ERRNO}$")
    default_errno: int = Field(alias="defaultErrnoRet")
    architectures: list[_Architecture] = Field(alias="archMap")
    entries: list[Entry] = Field(alias="syscalls")

    @property
    def allowed(self) -> frozenset[str]:
        """Every name that is allowed, even if only with some arguments."""
        return frozenset(name for entry in self.entries if entry.is_allowed for name in entry.names)


@dataclass(frozen=True, slots=True)
class SeccompProfile:
    """A compiled profile: the text for Docker, and its hash for the record."""

    name: str
    json: str = field(repr=False)
    hash: str
    allowed: frozenset[str] = field(repr=False)

    def for_gvisor(self) -> str:
        """Return the profile that gVisor's kernel is to apply to the program.

        gVisor's filter answers EPERM whatever `errnoRet` says (runsc --oci-seccomp). glibc does not
        take EPERM as a sign to do without a call: with EPERM from clone3, it makes no threads. So a
        call with an answer of its own is left to gVisor's kernel, which is not the host's and
        answers for itself. The exception is io_uring, which no program needs.

        It knows some calls by other names, and skips names that it does not know.
        """
        document = json.loads(self.json)
        for entry in document["syscalls"]:
            entry["names"] += [_GVISORS[name] for name in entry["names"] if name in _GVISORS]
            if entry.pop("errnoRet", EPERM) != EPERM:
                entry["names"] = [n for n in entry["names"] if not n.startswith("io_uring_")]
                entry["action"] = _ALLOW
        return _canonical(document)

    def for_building(self) -> str:
        """Return the profile of root in gVisor, who builds a template.

        Calls by which a package is installed and a root file system is entered come on top. It is
        gVisor's kernel that answers them; the host's is never asked.
        """
        document = json.loads(self.for_gvisor())
        document["syscalls"].append({"names": list(_ROOTS), "action": _ALLOW})
        # gVisor has no audit, and says so; with EPERM, useradd(8) gives up.
        audit = [
            {"index": index, "value": value, "valueTwo": 0, "op": "SCMP_CMP_EQ"}
            for index, value in ((0, socket.AF_NETLINK), (2, _NETLINK_AUDIT))
        ]
        document["syscalls"].append({"names": ["socket"], "action": _ALLOW, "args": audit})
        return _canonical(document)


def load_profile(profiles_dir: Path, name: str = "default") -> SeccompProfile:
    """Read and compile `seccomp/<name>.json`. Raises SetupError if it cannot be enforced."""
    path = profiles_dir / "seccomp" / f"{name}.json"
    raw, document = read_profile(path)
    try:
        compile_filter(document)
    except (OSError, KeyError) as error:
        raise SetupError(f"seccomp profile {path} does not compile: {error}") from error
    canonical = _canonical(raw)
    return SeccompProfile(
        name=name,
        json=canonical,
        hash="sha256:" + hashlib.sha256(canonical.encode()).hexdigest(),
        allowed=document.allowed,
    )


def read_profile(path: Path) -> tuple[Any, Document]:
    """Read a profile and check it. Raises SetupError that names the file."""
    try:
        raw: Any = json.loads(path.read_text())
        return raw, Document.model_validate(raw)
    except OSError as error:
        raise SetupError(f"seccomp profile {path} cannot be read: {error.strerror}") from error
    except (ValueError, ValidationError) as error:
        raise SetupError(f"seccomp profile {path} is not valid: {error}") from error


def _canonical(document: Any) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def compile_filter(document: Document, architecture: int | None = None) -> pyseccomp.SyscallFilter:
    """Give every rule to libseccomp, as runc will, for this machine's architecture or another."""
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(document.default_errno))
    if architecture is not None and architecture != pyseccomp.system_arch():
        rules.add_arch(architecture)
        rules.remove_arch(pyseccomp.system_arch())
    for entry in document.entries:
        action = pyseccomp.ALLOW if entry.is_allowed else pyseccomp.ERRNO(entry.errno_ret)
        arguments = [
            pyseccomp.Arg(a.index, _OPERATORS[a.op], a.value, a.value_two) for a in entry.args
        ]
        for call in entry.names:
            # The name is newer than this libseccomp. Like runc, leave it to the default, which
            # refuses.
            if pyseccomp.resolve_syscall(pyseccomp.system_arch(), call) != _UNKNOWN:
                rules.add_rule(action, call, *arguments)
    return rules


def process_filter(profiles_dir: Path, name: str) -> pyseccomp.SyscallFilter:
    """Return a profile as a filter that `load` applies to this process for good, with all threads.

    Raises SetupError if it cannot be enforced. Loading needs no_new_privs (seccomp(2)).
    """
    path = profiles_dir / "seccomp" / f"{name}.json"
    _, document = read_profile(path)
    try:
        rules = compile_filter(document)
        rules.set_attr(pyseccomp.Attr.CTL_TSYNC, 1)
    except (OSError, KeyError) as error:
        raise SetupError(f"seccomp profile {path} does not compile: {error}") from error
    return rules
