"""The shipped filter at work: forms of a call are told apart by their arguments.

Each refusal is shown beside a sandbox without the filter, where the same call ends some other way.
"""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pyseccomp
import pytest

from runner.profiles.learn import unfiltered
from tests.support import sandboxes
from tests.support.sandboxes import Bench

EPERM = 1
HIGH = 1 << 32
"""A bit that the kernel ignores in an int, and that must be no way around (CVE-2019-10063)."""

REFUSED = {
    "an MPTCP socket": ("socket", 2, 1, 262),
    "an SCTP socket": ("socket", 2, 1, 132),
    "a ping socket": ("socket", 2, 2, 1),
    "an L2TP socket": ("socket", 2, 2, 115),
    "a sequenced socket": ("socket", 2, 5, 0),
    "a netlink socket": ("socket", 16, 3, 0),
    "a netlink socket, by high bits": ("socket", 16 | HIGH, 3, 0),
    "a vsock socket": ("socket", 40, 1, 0),
    "a socket for the kernel's ciphers": ("socket", 38, 5, 0),
    "a pair of another family": ("socketpair", 2, 1, 0, 0),
    "a process without huge pages": ("prctl", 41, 1),
    "the state of speculation": ("prctl", 52, 0),
    "a persona without randomisation": ("personality", 0x40000),
    "a timer on a CPU clock": ("timer_create", 2, 0, 0),
    "another's limits": ("prlimit64", 1, 4, 0, 0),
    "a file by handle": ("open_by_handle_at", -1, 0, 0),
    "a new user namespace by clone": ("clone", 0x10000000 | HIGH | 0x200, 0),
}
ALLOWED = {
    "a TCP socket": ("socket", 2, 1, 6),
    "a TCP socket that does not block": ("socket", 10, 1 | 0x800 | 0x80000, 0),
    "a UDP socket": ("socket", 2, 2, 17),
    "a TCP socket, with high bits": ("socket", 2 | HIGH, 1 | HIGH, HIGH),
    "a unix socket": ("socket", 1, 5, 0),
    "its own dumpability": ("prctl", 3),
    "its own ids, as posix_spawn resets them": ("setresuid", -1, -1, -1),
    "its own groups, as posix_spawn resets them": ("setresgid", -1, -1, -1),
    "its persona": ("personality", 0xFFFFFFFF),
}
PROBE = """
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
found = {}
for name, (number, *arguments) in json.loads(sys.argv[1]).items():
    ctypes.set_errno(0)
    words = [ctypes.c_ulong(word & (2**64 - 1)) for word in (arguments + [0] * 6)[:6]]
    found[name] = ctypes.get_errno() if libc.syscall(ctypes.c_long(number), *words) == -1 else 0
print(json.dumps(found))
"""


async def errnos(bench: Bench, calls: Mapping[str, tuple[object, ...]]) -> dict[str, int]:
    """Return the errno of each call, 0 for success."""
    numbered = {
        what: (pyseccomp.resolve_syscall(pyseccomp.system_arch(), str(name)), *arguments)
        for what, (name, *arguments) in calls.items()
    }
    ran = await bench.run(("python3", "-c", PROBE, json.dumps(numbered)))
    assert ran.ending.exit_code == 0, ran
    found: dict[str, int] = json.loads(ran.stdout)
    return found


@pytest.fixture
async def open_bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Return a bench whose sandboxes have no filter."""
    async with sandboxes.bench(tmp_path / "open", configure=unfiltered) as made:
        yield made


async def test_forms_that_are_not_allowed_are_refused(bench: Bench, open_bench: Bench) -> None:
    assert await errnos(bench, REFUSED) == dict.fromkeys(REFUSED, EPERM)
    without = await errnos(open_bench, REFUSED)
    assert [what for what, errno in without.items() if errno == EPERM] == []


async def test_forms_that_are_allowed_work(bench: Bench) -> None:
    assert await errnos(bench, ALLOWED) == dict.fromkeys(ALLOWED, 0)
