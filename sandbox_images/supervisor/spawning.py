"""A program's start.

posix_spawn(3) does it. It does not copy PID 1, so the program can see nothing that PID 1 holds, and
a start takes a fraction of the time. All descriptors of PID 1 close as the program begins, because
Python opens them that way (PEP 446). Meanwhile PID 1 waits, for well below a millisecond. A program
that stops every process at that moment (SIGSTOP) makes PID 1 wait for ever: it ends its sandbox.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal

from files import WORKSPACE

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Any

IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""The signals that Python ignores for itself, which exec would leave ignored."""


class Spawner:
    """Starts programs with the limits that PID 1 was given; its own for open files is higher."""

    def __init__(self) -> None:
        self._given = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._raise()

    def spawn(
        self, argv: list[str], env: dict[str, str], cwd: str, actions: list[tuple[Any, ...]]
    ) -> int:
        """Start a program as leader of its own session; return its pid.

        Its environment is the container's, overridden by `env`.

        Raises OSError, and ValueError for an argument that no program can be given.
        """
        env = {**os.environ, **env}
        # PID 1's own folder does not matter: it names every file from the root.
        os.chdir(os.path.join(WORKSPACE, cwd))
        path = _found(argv[0], env.get("PATH", os.defpath))
        resource.setrlimit(resource.RLIMIT_NOFILE, self._given)
        try:
            pid = os.posix_spawn(
                path,
                argv,
                env,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=IGNORED,
            )
        finally:
            self._raise()
        # The kernel is to kill the program first and its supervisor last, which can then report
        # it. The score cannot be set for a program that is unreadable or has ended already.
        with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as score:
            score.write("1000")
        return pid

    def _raise(self) -> None:
        _, highest = self._given
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))


def _found(name: str, folders: str) -> str:
    """Return the path of the program of that name, found as by execvp(3)."""
    if "/" in name:
        return name
    denied = False
    for folder in folders.split(":"):
        path = os.path.join(folder or ".", name)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            denied = True
    raise PermissionError(13, name) if denied else FileNotFoundError(2, name)
