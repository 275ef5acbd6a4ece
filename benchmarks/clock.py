"""The clock of processes that a benchmark starts, which it can set ahead and back while they run.

The host's own clock is everybody's. So a library of a few lines lies between a process and the
kernel (ld.so(8), LD_PRELOAD), and adds to the time of day what a file says. Time that only passes
(CLOCK_MONOTONIC) is left alone, as the kernel leaves it alone when an operator sets a clock.
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIBRARY = """
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long *ahead;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_AHEAD");
    int file = path ? open(path, O_RDONLY) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) ahead = found;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && ahead && clock == CLOCK_REALTIME) now->tv_sec += *ahead;
    return failed;
}
"""


class Clock:
    """The time of day of processes that are started with its `environment`."""

    def __init__(self, folder: Path) -> None:
        """Build it in a folder. Raises RuntimeError if there is no C compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            raise RuntimeError("to set clocks needs a C compiler: apt-get install gcc libc6-dev")
        self._file = folder / "ahead"
        self.set_ahead(0)
        library = folder / "clock.so"
        subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"],
            input=_LIBRARY.encode(),
            check=True,
            timeout=60,
        )
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(self._file)}

    def set_ahead(self, seconds: int) -> None:
        """Set the clock ahead of the host's by this much, for all at once."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("q", seconds))

    @contextmanager
    def given(self) -> Iterator[None]:
        """Give it to the processes that are started inside the context."""
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
