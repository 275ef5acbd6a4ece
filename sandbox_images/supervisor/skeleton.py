"""What the home of a template's sandboxes begins with, copied there before anything is placed.

The build has left it in a folder of the image that every user may read. It is copied by the child
that is made ahead, so that nobody waits for it where sandboxes are started ahead.
"""

from __future__ import annotations

import errno
import os

from files import WORKSPACE, Placed
from wire import PIECE

SKELETON = "/opt/skeleton"
PERMISSIONS = 0o755
"""As with the usual umask: only the sandbox's user writes to its home."""


def fill(placed: Placed) -> int:
    """Copy it; return the errno of what prevents that, or 0. Root builds a template: it needs none.

    What was copied is remembered as placed, so that it is not taken for the program's work.
    """
    if os.geteuid() == 0:
        return 0
    folders, waiting = [], [""]
    try:
        while waiting:
            above = waiting.pop()
            with os.scandir(f"{SKELETON}/{above}") as entries:
                for entry in entries:
                    path = f"{above}{entry.name}"
                    target = f"{WORKSPACE}/{path}"
                    if entry.is_symlink():
                        os.symlink(os.readlink(entry.path), target)
                    elif entry.is_dir():
                        os.mkdir(target, 0o700)
                        folders.append((target, entry.stat().st_mode))
                        waiting.append(f"{path}/")
                    else:
                        _copy(entry.path, target)
                    placed.begin_with(path, os.lstat(target))
        # Last: a folder that nobody may write to takes no files.
        for target, mode in reversed(folders):
            os.chmod(target, mode & PERMISSIONS)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _copy(source: str, target: str) -> None:
    with open(source, "rb", buffering=0) as reading, open(target, "xb", buffering=0) as writing:
        while piece := reading.read(PIECE):
            view = memoryview(piece)
            while view:
                view = view[writing.write(view) :]
        status = os.fstat(reading.fileno())
        os.fchmod(writing.fileno(), status.st_mode & PERMISSIONS)
        os.utime(writing.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
