"""The health of this host's worker, which writes it every second to a file in its run folder.

`runner worker --healthy` reads the file, for Docker's and systemd's checks, because a worker
listens on no port. An old statement does not count: a worker that hangs, or cannot write, is not
healthy.
"""

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from runner.base.duties import Duties

FILE = "worker.ready"
EVERY_S = 1.0
STALE_S = 10.0
DOCKER = "Docker"
"""The name of what is wrong while a worker waits for Docker before it begins to work."""

Problems = Mapping[str, str]
"""Faults, by the names of what does not work; empty if all is well."""


class Health:
    """Reports the state of one worker."""

    def __init__(self, run_dir: Path, *sources: Callable[[], Problems]) -> None:
        self._path = run_dir / FILE
        self._sources = sources

    @asynccontextmanager
    async def told(self, duties: Duties) -> AsyncIterator[None]:
        """Keep reporting inside the context; afterwards, the worker counts as not ready."""
        self._say()
        try:
            async with duties.doing("telling of its health", self._tell, every_s=EVERY_S):
                yield
        finally:
            self._path.unlink(missing_ok=True)

    @property
    def found(self) -> Problems:
        """The present faults."""
        return {name: why for source in self._sources for name, why in source().items()}

    async def _tell(self) -> None:
        self._say()

    def _say(self) -> None:
        # CLOCK_MONOTONIC is the same for all processes of a host (clock_gettime(2)).
        said = {"pid": os.getpid(), "at": time.monotonic(), "problems": self.found}
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(said))
        fresh.replace(self._path)


def problems(run_dir: Path, pid: int | None = None) -> Problems:
    """Return what is wrong with the worker of this folder; `pid` is its process, if known."""
    try:
        said = json.loads((run_dir / FILE).read_text())
    except FileNotFoundError:
        return {"worker": "it does not run, or is not ready yet"}
    if pid is not None and said["pid"] != pid:
        return {"worker": "another process has said that it works"}
    silent_s = time.monotonic() - said["at"]
    if not 0 <= silent_s < STALE_S:
        return {"worker": f"process {said['pid']} has not said that it works for {STALE_S:g} s"}
    return dict(said["problems"])
