"""Reuse within a tenant: whatever a run plants, the next one does not find it.

Each plant is tried twice. In an ordinary sandbox, the next run must not see it: it was removed, or
the sandbox was found unclean and would have been destroyed. In a sandbox without cleaning, the next
run must see it, or the test would prove nothing.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from runner.sandbox.drive import use
from runner.sandbox.engine.spec import container_config
from runner.sandbox.guest.sandbox import Sandbox
from runner.verify.controls import supervisor
from runner.words.errors import ProtocolViolation
from runner.words.execution import InputFile, Program
from tests.support.sandboxes import Bench

UNCLEAN = """
import clean, processes, relay
clean.empty = lambda place, mode: None
processes.kill_all = lambda: None
kept = []
relay.Outbox.wipe = lambda self: kept.append(self)
"""
MARKER = "planted-" + "7d0e1c5f" * 4


@dataclass(frozen=True)
class Plant:
    """The first run's program, and the next one's, which prints if it finds any trace of the first.

    `removed` means that the sandbox is clean afterwards; otherwise, it is found unclean.
    """

    plant: str
    look: str
    removed: bool = True
    env: tuple[tuple[str, str], ...] = ()
    stdin: bytes = b""
    file: bytes = b""
    names: tuple[str, ...] = ()


ANY_FILE = """
import os
found = [n for n in os.listdir('/workspace') if n != 'main.py'] + os.listdir('/tmp')
if found + os.listdir('/dev/shm'): print('FOUND')
"""
ANY_PROCESS = """
import os
others = [n for n in os.listdir('/proc') if n.isdigit() and int(n) not in (1, os.getpid())]
if others: print('FOUND')
"""
DAEMON = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(n, signal.SIG_IGN)
        for fd in range(3): os.close(fd)
        {work}
    os._exit(0)
os.wait(); time.sleep(0.1)
"""
IN_MEMORY = """
import re
wanted = re.compile(rb'planted-(?:7d0e1c5f){4}')  # which is not what it finds
with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', buffering=0) as memory:
    for line in maps:
        begin, end = (int(each, 16) for each in line.split()[0].split('-'))
        if 'r' not in line.split()[1] or '[v' in line: continue
        memory.seek(begin)
        if wanted.search(memory.read(end - begin)): print('FOUND')
"""

PLANTS = {
    "a file": Plant("open('x', 'w').write('x')", ANY_FILE),
    "a hidden file": Plant("open('.x', 'w').write('x')", ANY_FILE),
    "a file in the temporary folder": Plant("open('/tmp/x', 'w').write('x')", ANY_FILE),
    "shared memory by name": Plant(
        """
from multiprocessing import resource_tracker, shared_memory
resource_tracker.register = lambda *_: None
block = shared_memory.SharedMemory('x', create=True, size=4096); block.buf[0] = 1
""",
        ANY_FILE,
    ),
    "a semaphore by name": Plant("open('/dev/shm/sem.x', 'w').write('x')", ANY_FILE),
    "names that are no text": Plant(
        "import os\nfor n in (b'\\xff\\xfe', b'a\\nb', b'-rf', b'...', b'\\x1b[2J'): open(n, 'w')",
        ANY_FILE,
    ),
    "a name as long as names are": Plant("open('x' * 255, 'w')", ANY_FILE),
    "a file nobody may write in a folder nobody may enter": Plant(
        """
import os
os.makedirs('a/b/c'); open('a/b/c/x', 'w').write('x')
os.chmod('a/b/c/x', 0); os.chmod('a/b/c', 0); os.chmod('a/b', 0o500); os.chmod('a', 0)
""",
        ANY_FILE,
    ),
    "a tree deeper than any path is long": Plant(
        """
import os
for place in ('/workspace', '/tmp'):
    os.chdir(place)
    for _ in range(3000): os.mkdir('d'); os.chdir('d')
    open('x', 'w').write('x')
""",
        ANY_FILE,
    ),
    "a tree that looks as if it were being emptied": Plant(
        """
import os
for n in range(200): os.makedirs(f'.{n:016x}/.{n:016x}/x')
""",
        ANY_FILE,
    ),
    "every inode": Plant(
        """
import os
for place in ('/workspace', '/tmp'):
    try:
        for n in range(100_000): open(f'{place}/{n}', 'w').close()
    except OSError: os.unlink(f'{place}/0')
""",
        ANY_FILE,
    ),
    "a full disk": Plant(
        """
import os
for place in ('/tmp', '/dev/shm'):
    file = open(f'{place}/x', 'wb', buffering=0)
    try:
        while True: file.write(bytes(1 << 20))
    except OSError: pass
""",
        ANY_FILE,
    ),
    "links, pipes and sockets as files": Plant(
        """
import os, socket
os.symlink('/etc/passwd', 'link'); os.symlink('.', 'loop'); os.mkfifo('pipe')
socket.socket(socket.AF_UNIX).bind('/workspace/socket')
open('one', 'w'); os.link('one', 'two')
""",
        ANY_FILE,
    ),
    "changed permissions": Plant(
        "import os; os.chmod('/workspace', 0o777)",
        "import os\nif os.stat('/workspace').st_mode & 0o777 != 0o700: print('FOUND')",
    ),
    "the program's own text by another name": Plant(
        "import os; os.rename('main.py', 'x')", ANY_FILE
    ),
    "a folder by the name of the program's text": Plant(
        "import os; os.unlink('main.py'); os.makedirs('main.py/x')",
        "import os\nif os.path.isdir('/workspace/main.py'): print('FOUND')",
    ),
    "a background process": Plant(
        "import subprocess; subprocess.Popen(['sleep', '60'])", ANY_PROCESS
    ),
    "a daemon that ignores signals": Plant(DAEMON.format(work="time.sleep(60)"), ANY_PROCESS),
    "a stopped process": Plant(
        DAEMON.format(work="os.kill(os.getpid(), signal.SIGSTOP)"), ANY_PROCESS
    ),
    "many processes": Plant(
        """
import os, time
for _ in range(40):
    if os.fork() == 0: time.sleep(60)
""",
        ANY_PROCESS,
    ),
    "one that wakes later and writes": Plant(
        DAEMON.format(work="time.sleep(0.5); open('/tmp/late', 'w').write('x'); time.sleep(60)"),
        "import time; time.sleep(1)\n" + ANY_FILE,
    ),
    "one that wakes later and puts out": Plant(
        """
import os, time
if os.fork() == 0:
    while True: time.sleep(0.1); open('/tmp/pulse', 'a').write('x')
""",
        "import time; time.sleep(0.5)\n" + ANY_FILE,
    ),
    "an open port": Plant(
        DAEMON.format(
            work="import socket; s = socket.create_server(('127.0.0.1', 8000)); time.sleep(60)"
        ),
        """
import socket
try: socket.create_connection(('127.0.0.1', 8000)); print('FOUND')
except ConnectionRefusedError: pass
""",
    ),
    "an abstract socket": Plant(
        DAEMON.format(
            work="import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0x'); s.listen(); "
            "time.sleep(60)"
        ),
        "if '@x' in open('/proc/net/unix').read(): print('FOUND')",
    ),
    "a connection closed a moment ago": Plant(
        """
import socket
server = socket.create_server(('127.0.0.1', 8000))
client = socket.create_connection(('127.0.0.1', 8000))
other, _ = server.accept(); client.close(); other.close()
""",
        "if ':1F40' in open('/proc/net/tcp').read(): print('FOUND')",
        removed=False,
    ),
    "the supervisor's priority": Plant(
        "import os; os.setpriority(os.PRIO_PROCESS, 1, 19)",
        "import os\nif os.nice(0) == 19: print('FOUND')",
        removed=False,
    ),
    "the supervisor's processors": Plant(
        "import os; os.sched_setaffinity(1, {min(os.sched_getaffinity(1))})",
        "import os\nif len(os.sched_getaffinity(0)) == 1 < os.cpu_count(): print('FOUND')",
        removed=False,
    ),
    "output in the supervisor's memory": Plant(f"print(50 * {MARKER!r})", IN_MEMORY),
}
BEFORE_THE_RUN = {
    "an environment variable": Plant("", IN_MEMORY, env=(("SECRET", MARKER),)),
    "input": Plant("", IN_MEMORY, stdin=MARKER.encode()),
    "the program's text": Plant(f"'{MARKER}'", IN_MEMORY),
    "a file's bytes": Plant("", IN_MEMORY, file=MARKER.encode()),
    "a pattern for artifacts": Plant("", IN_MEMORY, names=(f"{MARKER}/**",)),
    "an artifact's name": Plant(f"open({MARKER!r}, 'w').write('x')", IN_MEMORY),
}
"""Things that only pass through. The output above shows that the search finds what is there."""


@asynccontextmanager
async def sandbox(bench: Bench, *, cleaned: bool) -> AsyncIterator[Sandbox]:
    """Start a sandbox, with its cleaning or without."""

    def config(*args: Any) -> dict[str, Any]:
        made = container_config(*args)
        if not cleaned:
            supervisor(UNCLEAN)(made)
        return made

    bench.launcher.maker.configure = config
    async with bench.sandbox(timeout_s=20) as started:
        await started.load()
        yield started


async def plant_and_look(bench: Bench, plant: Plant, *, cleaned: bool) -> tuple[bool, list[str]]:
    """Return whether the second run found the first one's plant, and what cleaning reported."""
    async with sandbox(bench, cleaned=cleaned) as started:
        program = Program(("python3", "main.py"), dict(plant.env), plant.stdin, interpret=True)
        files = [InputFile("main.py", plant.plant.encode())]
        if plant.file:
            files.append(InputFile("data", plant.file))
        first = await use(
            started, program, bench.limits.bounds, files=files, names=plant.names, again=True
        )
        assert first.ending.exit_code == 0, first.stderr
        left = await started.clean()
        look = b"".join([b"import os\n", plant.look.encode()])
        name = "main.py" if cleaned else "look.py"
        then = Program(("python3", name), {}, interpret=True)
        second = await use(started, then, bench.limits.bounds, files=[InputFile(name, look)])
        assert second.ending.exit_code == 0, second.stderr
        return b"FOUND" in second.stdout, left


@pytest.mark.parametrize("name", [*PLANTS, *BEFORE_THE_RUN])
async def test_nothing_planted_reaches_the_next_run(bench: Bench, name: str) -> None:
    """The sandbox is clean and the plant is gone, or the sandbox is not used again."""
    plant = {**PLANTS, **BEFORE_THE_RUN}[name]
    found, left = await plant_and_look(bench, plant, cleaned=True)
    assert (left == []) is plant.removed, left
    assert not found or not plant.removed


@pytest.mark.parametrize("name", PLANTS)
async def test_without_cleaning_the_next_run_finds_it(bench: Bench, name: str) -> None:
    """The same plants and searches show that the test above is able to fail."""
    found, _ = await plant_and_look(bench, PLANTS[name], cleaned=False)
    assert found


@pytest.mark.parametrize("name", ["a file", "a daemon that ignores signals", "an open port"])
async def test_the_worker_sees_from_outside_what_a_supervisor_does_not_tell(
    bench: Bench, name: str
) -> None:
    """The worker does not believe a supervisor that cleans nothing and claims that all is clean."""

    def config(*args: Any) -> dict[str, Any]:
        made = container_config(*args)
        supervisor(UNCLEAN + "clean.leftovers = lambda baseline, processes: []")(made)
        return made

    bench.launcher.maker.configure = config
    async with bench.sandbox() as started:
        program = Program(("python3", "main.py"), {}, interpret=True)
        files = [InputFile("main.py", PLANTS[name].plant.encode())]
        await use(started, program, bench.limits.bounds, files=files, again=True)
        left = await started.clean()
    assert left
    assert all("seen from outside" in each for each in left)


async def test_an_attribute_of_a_folder_ends_it(bench: Bench) -> None:
    """Simulated, except for PID 1: some kernels' tmpfs has no attributes (CONFIG_TMPFS_XATTR)."""

    def config(*args: Any) -> dict[str, Any]:
        made = container_config(*args)
        supervisor("import os; os.listxattr = lambda _: ['user.x'] * (os.getpid() != 1)")(made)
        return made

    bench.launcher.maker.configure = config
    async with bench.sandbox() as started:
        attributes = ["attributes of /workspace", "attributes of /tmp", "attributes of /dev/shm"]
        for text, left in ((b"", []), (b"touch x", attributes)):
            files = [InputFile("main.sh", text)]
            program = Program(("bash", "main.sh"), {})
            await use(started, program, bench.limits.bounds, files=files, again=True)
            assert await started.clean() == left


async def test_a_run_that_left_nothing_needs_no_process_to_clean_up(bench: Bench) -> None:
    """Process ids show it: a run that left a file takes one more."""
    taken = []
    async with bench.sandbox() as started:
        for line in ("", "", "open('x', 'w').close()", ""):
            text = f"import os; print(os.getpid()); {line}"
            ran = await use(
                started,
                Program(("python3", "main.py"), {}, interpret=True),
                bench.limits.bounds,
                files=[InputFile("main.py", text.encode())],
                again=True,
            )
            taken.append(int(ran.stdout))
            assert await started.clean() == []
    first = taken[0]
    assert taken == [first, first + 1, first + 2, first + 4]


async def test_a_supervisor_that_collected_itself_obeys_nothing_more(bench: Bench) -> None:
    """So no run is forked from memory that has held another run's files."""
    async with bench.sandbox() as started:
        await use(started, Program(("true",), {}), bench.limits.bounds, again=False)
        with pytest.raises(ProtocolViolation):
            await started.clean()
    async with bench.sandbox() as started:
        await use(started, Program(("true",), {}), bench.limits.bounds, again=True)
        assert await started.clean() == []
