"""Traces of a run in its sandbox, as far as the host sees them: the supervisor is not asked.

A worker that may not look into another user's process sees less, and finds less then; of gVisor,
whose inside is no process of the host's, nobody outside sees more than its settings.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.sandbox.observe.cgroups import Cgroups
from runner.sandbox.observe.isolation import EffectiveIsolation, read_isolation
from runner.sandbox.observe.kernel import entries, read
from runner.words.sandbox import SHARE_THE_KERNEL

PLACES = ("/tmp", "/dev/shm")  # noqa: S108 - the sandbox's own
"""The places that a program may write to, beside its home."""
SOCKETS = ("sockstat", "sockstat6")
"""How many sockets of each kind there are in a network (sockstat); of TCP closed ones, too."""
_OWN = {"inuse", "tw"}


def traces(
    facts: Mapping[str, Any],
    before: EffectiveIsolation | None,
    cgroups: Cgroups,
    proc: Path = Path("/proc"),
) -> list[str]:
    """Return the kinds of what is left in the container that Docker describes so.

    `before` is how it was isolated when it had run nothing.
    """
    now = read_isolation(facts, proc)
    if now is None or now != before:
        return ["settings of its first process, seen from outside"]
    if now.runtime not in SHARE_THE_KERNEL:
        return []
    init = int(facts["State"]["Pid"])
    left = []
    if cgroups.processes(str(facts["Id"])) != (init,):
        left.append("processes, seen from outside")
    inside = f"{proc}/{init}"
    if any(_entries(f"{inside}/root{place}") for place in (facts["Config"]["WorkingDir"], *PLACES)):
        left.append("files, seen from outside")
    if any(_counted(f"{inside}/net/{each}") for each in SOCKETS):
        left.append("sockets, seen from outside")
    return left


def _entries(folder: str) -> bool:
    with contextlib.suppress(PermissionError):
        return bool(entries(folder))
    return False


def _counted(path: str) -> int:
    """Return how many sockets of the internet's protocols are open, or closed a moment ago."""
    with contextlib.suppress(PermissionError, FileNotFoundError):
        lines = [line.split() for line in read(path).splitlines()]
        pairs = [pair for words in lines for pair in zip(words[1::2], words[2::2], strict=True)]
        return sum(int(number) for name, number in pairs if name in _OWN)
    return 0
