"""What a run has left in its sandbox, as far as the host can see: the supervisor is not asked.

A worker that may not look into another user's process sees less, and finds less then; of gVisor,
whose inside is no process of the host's, nobody outside sees more than its settings.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.models import WORKSPACE
from runner.sandbox.cgroups import Cgroups
from runner.sandbox.isolation import EffectiveIsolation, read_isolation

PLACES = (WORKSPACE, "/tmp", "/dev/shm")  # noqa: S108 - the sandbox's own
TABLES = ("tcp", "tcp6", "udp", "udp6")
_HEADING = 1


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
    if now.runtime != "runc":
        return []
    init = int(facts["State"]["Pid"])
    left = []
    if cgroups.processes(str(facts["Id"])) != (init,):
        left.append("processes, seen from outside")
    inside = proc / str(init)
    if any(_entries(inside / "root" / place.lstrip("/")) for place in PLACES):
        left.append("files, seen from outside")
    if any(_lines(inside / "net" / table) > _HEADING for table in TABLES):
        left.append("sockets, seen from outside")
    return left


def _entries(folder: Path) -> bool:
    return any(True for _ in _look(folder))


def _look(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(PermissionError):
        yield from folder.iterdir()


def _lines(path: Path) -> int:
    with contextlib.suppress(PermissionError, FileNotFoundError):
        return len(path.read_text().splitlines())
    return 0
