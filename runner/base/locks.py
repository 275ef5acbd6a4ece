"""Files that a process locks to show that it runs.

Whoever may read such a file may also lock it (flock(2), fcntl(2)). Another user of this host could
then keep a process from starting, or make an ended one seem to run. So only the owner may open it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def lock_file(path: Path) -> Iterator[IO[str]]:
    """Open a file to lock, for reading and writing; make it and its folder if they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        # A file that an earlier release made may have another mode.
        os.fchmod(descriptor, 0o600)
        yield file
