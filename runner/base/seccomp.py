"""The system calls a sandbox may make: read, hashed and compiled before any sandbox starts.

A profile is in Docker's JSON format, an allowlist whose entries carry their reasons. The runtime
applies it before any program of a tenant runs; a profile that does not compile is a SetupError,
so that no sandbox ever starts with less than the whole of it.
"""

import hashlib
import json
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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Argument(_Strict):
    """A test of one argument, as seccomp_rule_add(3) has them."""

    index: int = Field(ge=0, le=5)
    value: int
    value_two: int = Field(alias="valueTwo")
    op: str


class Entry(_Strict):
    """Some system calls, what becomes of them, and why."""

    comment: str = Field(min_length=1)
    names: list[str] = Field(min_length=1)
    action: str = Field(pattern=f"^({_ALLOW}|{_ERRNO})$")
    errno_ret: int = Field(alias="errnoRet", default=1, ge=1, le=4095)
    args: list[Argument] = Field(default_factory=list, max_length=6)

    @property
    def is_allowed(self) -> bool:
        """Whether calls that pass the tests are made; else they are answered with `errno_ret`."""
        return self.action == _ALLOW

    @field_validator("args")
    @classmethod
    def _one_test_each(cls, args: list[Argument]) -> list[Argument]:
        # All must hold; runc reads two tests of one argument as "or" instead.
        if len({argument.index for argument in args}) != len(args):
            raise ValueError("an argument is tested twice in one entry")
        return args


class _Architecture(_Strict):
    architecture: str
    sub_architectures: list[str] = Field(alias="subArchitectures", max_length=0)


class Document(_Strict):
    """A default of refusal and no second architecture: 32-bit entries are a way around."""

    default_action: str = Field(alias="defaultAction", pattern=f"^{_ERRNO}$")
    default_errno: int = Field(alias="defaultErrnoRet")
    architectures: list[_Architecture] = Field(alias="archMap")
    entries: list[Entry] = Field(alias="syscalls")

    @property
    def allowed(self) -> frozenset[str]:
        """Every name that is allowed, if only with some arguments."""
        return frozenset(name for entry in self.entries if entry.is_allowed for name in entry.names)


@dataclass(frozen=True, slots=True)
class SeccompProfile:
    """A compiled profile: what Docker is given, and its hash for the record."""

    name: str
    json: str = field(repr=False)
    hash: str
    allowed: frozenset[str] = field(repr=False)

    def for_gvisor(self) -> str:
        """Return the profile as gVisor's kernel is to apply it to the program.

        Its filter answers EPERM whatever `errnoRet` says (runsc --oci-seccomp), which glibc does
        not take for "do without": with EPERM from clone3 there are no threads. So a call with an
        answer of its own is let through to gVisor's kernel, which answers for itself and is not
        the host's; but for io_uring, which no program needs.
        """
        document = json.loads(self.json)
        for entry in document["syscalls"]:
            if entry.pop("errnoRet", EPERM) != EPERM:
                entry["names"] = [n for n in entry["names"] if not n.startswith("io_uring_")]
                entry["action"] = _ALLOW
        return _canonical(document)


def load_profile(profiles_dir: Path, name: str = "default") -> SeccompProfile:
    """Read and compile `seccomp/<name>.json`. Raises SetupError when it cannot be enforced."""
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
    """Read a profile, as it is written and checked. Raises SetupError naming the file."""
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
    """Give every rule to libseccomp, as runc will: for this machine's architecture or another."""
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
            # A name newer than this libseccomp: runc, too, leaves it to the default, refusal.
            if pyseccomp.resolve_syscall(pyseccomp.system_arch(), call) != _UNKNOWN:
                rules.add_rule(action, call, *arguments)
    return rules


def process_filter(profiles_dir: Path, name: str) -> pyseccomp.SyscallFilter:
    """Return a profile as a filter to `load` into this process, every thread of it, for good.

    Raises SetupError when it cannot be enforced. Loading needs no_new_privs (seccomp(2)).
    """
    path = profiles_dir / "seccomp" / f"{name}.json"
    _, document = read_profile(path)
    try:
        rules = compile_filter(document)
        rules.set_attr(pyseccomp.Attr.CTL_TSYNC, 1)
    except (OSError, KeyError) as error:
        raise SetupError(f"seccomp profile {path} does not compile: {error}") from error
    return rules
