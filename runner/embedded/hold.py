"""The hold on a state folder: one embedded stack at a time; others learn who holds it.

A second stack would remove the sockets of the first. The lock ends with the process that holds it,
however that process ends, so a crash leaves nothing to clean up.
"""

import fcntl
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.base.locks import lock_file
from runner.words.errors import SetupError

FILE = "stack.lock"
_WHOLE_FILE = struct.Struct("hhqqi4x").pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
"""`struct flock` of fcntl(2), as 64-bit Linux lays it out."""
_KIND = struct.Struct("h")


@contextmanager
def held(state_dir: Path) -> Iterator[Callable[[str], None]]:
    """Hold the folder inside the context; yield a function that tells others the stack's address.

    Raises SetupError that names the process which already holds it.
    """
    with lock_file(_path(state_dir)) as file:
        try:
            # A lock of the open file: closing another one of this process does not release it.
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        except (BlockingIOError, PermissionError):
            raise SetupError(_in_use(state_dir)) from None

        def tell(url: str) -> None:
            file.seek(0)
            file.truncate()
            json.dump({"pid": os.getpid(), "url": url}, file)
            file.flush()

        yield tell
        file.truncate(0)


def is_held(state_dir: Path) -> bool:
    """Return whether an embedded stack runs or starts in the folder."""
    try:
        with _path(state_dir).open() as file:
            found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _WHOLE_FILE)
    except FileNotFoundError:
        return False
    return bool(_KIND.unpack_from(found)[0] != fcntl.F_UNLCK)


def _in_use(state_dir: Path) -> str:
    try:
        holder = json.loads(_path(state_dir).read_text("utf-8"))
        pid = f"{holder['pid']}"
        stop = f"stop it with `kill {pid}`"
        who = f"process {pid}, {holder['url']}"
    except (ValueError, TypeError, KeyError):
        # The other process took the lock only a moment ago.
        who, stop = "it is starting", "stop it"
    return (
        f"a deployment runs already in {state_dir} ({who}): use that one, {stop}, "
        "or set RUNNER_STATE_DIR to another folder"
    )


def _path(state_dir: Path) -> Path:
    return state_dir / "run" / FILE
