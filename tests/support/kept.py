"""Folders that are kept from one run of tests to the next, because it takes long to make them.

Each is named after what it is made of, so that another content is another folder, and is never
changed once it is there. Those that no run has used for a while are removed.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STAMP = ".made"
"""In a folder that is whole; its time says when it was used last."""
UNUSED_S = 14 * 24 * 3600


def cache_folder() -> Path:
    """Return where this user's caches are (XDG Base Directory Specification)."""
    given = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given, "agent-runner", "kept")


def kept(what: str, make: Callable[[Path], None], *, below: Path | None = None) -> Path:
    """Return the folder of this content, which `make` fills if no run has done so yet.

    Other processes wait meanwhile. A folder whose making failed is made anew.
    """
    store = below or cache_folder()
    store.mkdir(parents=True, exist_ok=True)
    folder = store / hashlib.sha256(what.encode()).hexdigest()[:24]
    with exclusive(folder.with_suffix(".lock")):
        if not (folder / STAMP).exists():
            _remove_unused(store)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
        (folder / STAMP).touch()
    return folder


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Let no other process be inside the context of this lock at the same time."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_unused(store: Path) -> None:
    for stamp in store.glob(f"*/{STAMP}"):
        if time.time() - stamp.stat().st_mtime > UNUSED_S:
            with exclusive(stamp.parent.with_suffix(".lock")):
                shutil.rmtree(stamp.parent)
