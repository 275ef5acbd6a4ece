"""The smallest profile for the observed calls, as a change to the one in force. No I/O."""

import copy
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.base.seccomp import Argument, Document, Entry
from runner.profiles.dangerous import DANGEROUS

_ALLOW = "SCMP_ACT_ALLOW"
_MASKED = "SCMP_CMP_MASKED_EQ"
_INT = 2**32 - 1
_WORD = 2**64 - 1


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """A call that was made: its name, and the arguments that the profile looks at, by index."""

    name: str
    arguments: tuple[tuple[int, int], ...] = ()


_SANDBOX_NAMES = (
    # The supervisor and its interpreter, with the names of x86-64 and of arm64.
    "access faccessat faccessat2 arch_prctl brk chmod clock_nanosleep close close_range "
    "connect chdir dup dup2 dup3 epoll_create1 execve exit exit_group fchmod fchmodat fcntl "
    "fstat futex getcwd getdents64 getegid geteuid getgid getpeername getpid getpriority "
    "getrandom getsockname gettid getuid kill listxattr lseek lstat memfd_create mkdir mkdirat "
    "mmap mprotect mremap munmap newfstatat open openat pipe pipe2 poll ppoll pread64 pwrite64 "
    "read readv readlink readlinkat recvfrom rename renameat rmdir rseq rt_sigaction "
    "rt_sigprocmask rt_sigreturn sendto set_robust_list set_tid_address setsid sigaltstack "
    "stat statfs statx sysinfo uname unlink unlinkat utimensat wait4 write "
    # The supervisor's bridge to the egress proxy.
    "accept accept4 bind getsockopt listen setsockopt shutdown "
    # The container runtime between applying the filter and starting the supervisor.
    "capget clock_gettime epoll_ctl epoll_pwait fchdir fstatfs getppid madvise nanosleep "
    "restart_syscall sched_getaffinity sched_yield tgkill"
)
SANDBOX = frozenset(
    {
        *(Call(name) for name in _SANDBOX_NAMES.split()),
        Call("clone", ((0, 0x11),)),  # SIGCHLD: fork
        Call("clone", ((0, 0x50F00),)),  # a thread's flags
        Call("ioctl", ((1, 0x5401),)),  # TCGETS: isatty
        Call("ioctl", ((1, 0x5421),)),  # FIONBIO
        Call("ioctl", ((1, 0x5451),)),  # FIOCLEX
        Call("prctl", ((0, 4),)),  # PR_SET_DUMPABLE
        Call("prlimit64", ((0, 0),)),
        Call("socket", ((0, 1), (1, 1), (2, 0))),
        Call("socket", ((0, 2), (1, 1), (2, 0))),
        Call("socketpair", ((0, 1),)),
    }
)
"""Calls of every sandbox, whatever its program does; without these calls, none starts."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal: the changes to make, and considerations before."""

    before: str
    after: str
    unused: tuple[str, ...]
    added: tuple[Call, ...]
    """Calls that the command made and the profile in force refuses."""
    warnings: tuple[str, ...]

    def diff(self, name: str) -> str:
        """Return the unified diff; it is empty if nothing would change."""
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            f"a/{name}",
            f"b/{name}",
        )
        return "".join(lines)


def conditional_arguments(document: Document) -> dict[str, tuple[int, ...]]:
    """Return which arguments the profile looks at, by the call's name."""
    found: dict[str, set[int]] = {}
    for entry in document.entries:
        for name in entry.names:
            found.setdefault(name, set()).update(test.index for test in entry.args)
    return {name: tuple(sorted(indexes)) for name, indexes in found.items() if indexes}


def propose(
    raw: Mapping[str, Any], document: Document, calls: Iterable[Call], why: str
) -> Proposal:
    """Return the smallest profile that permits these calls; `why` goes into its comments.

    Entries that answer a call in their own way (such as ENOSYS for clone3) stay: the programs that
    got these answers did without the calls. Entries keep their order and their comments.
    """
    made = frozenset(calls)
    needed = made | SANDBOX
    entries, kept = [], set()
    for entry, written in zip(document.entries, raw["syscalls"], strict=True):
        names = entry.names
        if entry.is_allowed:
            names = [name for name in names if any(_passes(c, name, entry) for c in needed)]
            kept.update(names)
        if names:
            entries.append({**copy.deepcopy(written), "names": names})
    added = tuple(sorted({_plain(call, document) for call in _refused(made, document)}))
    entries.extend(_additions(added, document, why))
    return Proposal(
        before=_written(dict(raw)),
        after=_written({**raw, "syscalls": entries}),
        unused=tuple(sorted(document.allowed - kept)),
        added=added,
        warnings=tuple(_warnings(added)),
    )


def _refused(made: Iterable[Call], document: Document) -> Iterator[Call]:
    """Yield the calls that the profile refuses by default, not by an entry of their own."""
    allowing = [entry for entry in document.entries if entry.is_allowed]
    answered = {n for entry in document.entries if not entry.is_allowed for n in entry.names}
    for call in made:
        passes = any(_passes(call, name, entry) for entry in allowing for name in entry.names)
        if call.name not in answered and not passes:
            yield call


def _passes(call: Call, name: str, entry: Entry) -> bool:
    values = dict(call.arguments)
    return call.name == name and all(
        test.index not in values or _holds(test, values[test.index]) for test in entry.args
    )


def _holds(test: Argument, value: int) -> bool:
    """Compare as the kernel's filter does: unsigned, 64 bits (seccomp_rule_add(3))."""
    datum = test.value & _WORD
    return {
        _MASKED: value & datum == test.value_two,
        "SCMP_CMP_NE": value != datum,
        "SCMP_CMP_LT": value < datum,
        "SCMP_CMP_LE": value <= datum,
        "SCMP_CMP_EQ": value == datum,
        "SCMP_CMP_GE": value >= datum,
        "SCMP_CMP_GT": value > datum,
    }[test.op]


def _mask(name: str, index: int, document: Document) -> int:
    """Return the bits of this argument that the profile looks at."""
    for entry in document.entries:
        for test in entry.args:
            if name in entry.names and test.index == index and test.op == _MASKED:
                return test.value
    return _INT


def _plain(call: Call, document: Document) -> Call:
    return Call(
        call.name, tuple((i, value & _mask(call.name, i, document)) for i, value in call.arguments)
    )


def _additions(added: Iterable[Call], document: Document, why: str) -> Iterator[dict[str, Any]]:
    if plain := [call.name for call in added if not call.arguments]:
        yield {"comment": why, "names": plain, "action": _ALLOW}
    for call in added:
        if call.arguments:
            tests = [
                {
                    "index": index,
                    "value": _mask(call.name, index, document),
                    "valueTwo": value,
                    "op": _MASKED,
                }
                for index, value in call.arguments
            ]
            yield {"comment": why, "names": [call.name], "action": _ALLOW, "args": tests}


def _warnings(added: Iterable[Call]) -> Iterator[str]:
    for call in added:
        if call.name in DANGEROUS:
            yield f"{call.name}: it {DANGEROUS[call.name]}"
        elif call.arguments:
            values = ", ".join(f"argument {index} = {value:#x}" for index, value in call.arguments)
            yield f"{call.name} with {values}: other forms are allowed, this one is refused"


def _written(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
