"""Amounts that the kernel counts by user: one of two sandboxes side by side takes all there is.

One sandbox uses up a limit while the other does what it did alone. Without the control, both run as
one user, and the second gets less.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from textwrap import indent
from typing import Any

from runner.verify.bench import Bench
from runner.verify.check import Check, Group, Observation, Probe
from runner.verify.controls import Change, become
from runner.verify.guests import Guest
from runner.verify.trial import Attempt, Trial
from runner.words.execution import Stream
from runner.words.sandbox import Isolation

_PRELUDE = """
import array, ctypes, fcntl, os, resource, signal, socket, time
libc = ctypes.CDLL(None, use_errno=True)
SIGNAL = signal.SIGRTMIN
signal.pthread_sigmask(signal.SIG_BLOCK, [SIGNAL])
def many_files(): resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
def timer(): return libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p()))
def send(number):
    pair = socket.socketpair()
    rights = array.array('i', [0] * number)
    while True:
        pair[0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        yield pair
kept = []
"""
_FULL = "all is taken"
_ROOM = {"memory_mb": 512, "disk_mb": 128, "timeout_s": 30.0}
"""Memory that the kernel holds for a sandbox counts as the sandbox's."""
_TAKE = f"""
try: take()
except OSError: print('{_FULL}', flush=True)
else: print('not all', flush=True)
time.sleep(60)
"""
_USE = """
try: use()
except OSError: pass
print(len(kept))
"""


@dataclass(frozen=True, slots=True)
class _Limit:
    """A limit by user: `take` raises OSError when it is reached, `use` keeps what it gets."""

    id: str
    title: str
    source: str
    take: str
    use: str


_LIMITS = (
    _Limit(
        id="inotify-instances",
        title="inotify instances",
        source="inotify(7), max_user_instances",
        take="while libc.inotify_init1(0) >= 0: pass\nraise OSError",
        use="while len(kept) < 8 and (fd := libc.inotify_init1(0)) >= 0: kept.append(fd)",
    ),
    _Limit(
        id="inotify-watches",
        title="inotify watches",
        source="inotify(7), max_user_watches",
        take="names = [f'{each}'.encode() for each in range(7500)]\n"
        "for name in names: os.close(os.open(name, os.O_CREAT))\n"
        "while (fd := libc.inotify_init1(0)) >= 0:\n"
        "    for name in names:\n"
        "        if libc.inotify_add_watch(fd, name, 2) < 0: raise OSError",
        use="fd = libc.inotify_init1(0)\n"
        "while len(kept) < 8:\n"
        "    name = str(len(kept)).encode()\n"
        "    os.close(os.open(name, os.O_CREAT))\n"
        "    if libc.inotify_add_watch(fd, name, 2) < 0: break\n"
        "    kept.append(name)",
    ),
    _Limit(
        id="pipe-pages",
        title="Pages of pipes",
        source="pipe(7), pipe-user-pages-soft",
        take="many_files()\n"
        "while True:\n"
        "    kept.extend(os.pipe())\n"
        "    if fcntl.fcntl(kept[-1], fcntl.F_GETPIPE_SZ) < 65536: raise OSError",
        use="kept.extend(range(fcntl.fcntl(os.pipe()[0], fcntl.F_GETPIPE_SZ)))",
    ),
    _Limit(
        id="pending-signals",
        title="Pending signals",
        source="getrlimit(2), RLIMIT_SIGPENDING",
        take="most = resource.getrlimit(resource.RLIMIT_SIGPENDING)[0]\n"
        "for _ in range(most): os.kill(os.getpid(), SIGNAL)\n"
        "queued = next(line for line in open('/proc/self/status') if line.startswith('SigQ'))\n"
        "if int(queued.split()[1].split('/')[0]) >= most: raise OSError",
        use="for _ in range(8): os.kill(os.getpid(), SIGNAL)\n"
        "while given := signal.sigtimedwait([SIGNAL], 0): kept.append(given)",
    ),
    _Limit(
        id="timers",
        title="POSIX timers",
        source="timer_create(2), EAGAIN",
        take="while timer() == 0: pass\nraise OSError",
        use="while len(kept) < 8 and timer() == 0: kept.append(1)",
    ),
    _Limit(
        id="descriptors-in-flight",
        title="Descriptors in flight",
        source="unix(7), ETOOMANYREFS",
        take="many_files()\nfor pair in send(250): kept.append(pair)",
        use="for pair, _ in zip(send(1), range(8)): kept.append(pair)",
    ),
)


def _beside(limit: _Limit) -> Attempt:
    """Return an attempt to take from another sandbox what that sandbox gets when it is alone."""
    take = f"{_PRELUDE}def take():\n{indent(limit.take, '    ')}{_TAKE}"
    use = f"{_PRELUDE}def use():\n{indent(limit.use, '    ')}{_USE}"

    async def attempt(bench: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        if bench.isolation is Isolation.GVISOR:
            return Observation(breached=False, saw="each has gVisor's own kernel", absent=True)
        changes: tuple[Change, ...] = () if guarded else (_one_user(),)
        async with (
            bench.sandbox(*changes, limits=_ROOM) as taker,
            bench.sandbox(*changes, limits=_ROOM) as user,
        ):
            alone = await _used(bench, user, use)
            async with _taking(bench, taker, take) as taken:
                beside = await _used(bench, user, use)
        saw = f"{beside} of {alone}"
        # If the limit was not reached, this shows nothing about the control.
        absent = not guarded and taken != _FULL
        return Observation(breached=beside < alone, saw=f"{saw}, {taken}", absent=absent)

    return attempt


@asynccontextmanager
async def _taking(bench: Bench, sandbox: Guest, code: str) -> AsyncIterator[str]:
    """Run the code inside the context; yield what it said when it had taken all it could."""
    said: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def hear(stream: Stream, chunk: bytes) -> None:
        if stream is Stream.STDOUT and not said.done():
            said.set_result(chunk)

    running = asyncio.ensure_future(
        bench.run(sandbox, code, bounds=bench.within(_ROOM).bounds, on_output=hear)
    )
    waits: set[asyncio.Future[Any]] = {running, said}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        yield said.result().decode().strip() if said.done() else "ended before it had all"
    finally:
        running.cancel()
        await asyncio.wait({running})


async def _used(bench: Bench, sandbox: Guest, code: str) -> int:
    ran = await bench.run(sandbox, code, bounds=bench.within(_ROOM).bounds)
    return int(ran.stdout or 0)


def _one_user() -> Change:
    """Make all sandboxes with this change run as the first one's user."""
    users: list[str] = []

    def change(config: dict[str, Any]) -> None:
        users.append(config["User"])
        become(users[0])(config)

    return change


CHECKS: tuple[Check, ...] = (
    *(
        Trial(
            id=f"resources.shared.{limit.id}",
            group=Group.RESOURCES,
            title=f"{limit.title} cannot be used up for other sandboxes",
            meaning="one tenant could stop the programs of all others, or send signals to one of them",
            source=limit.source,
            control="a user of its own",
            attempt=_beside(limit),
            lives=True,
        )
        for limit in _LIMITS
    ),
    Probe(
        id="resources.shared.terminals",
        group=Group.RESOURCES,
        title="Pseudo-terminals are limited in each sandbox",
        meaning="one tenant could use up all of the host's",
        source="pty(7), kernel.pty.max; filesystems/devpts.rst, max=",
        control="terminals",
        alone=True,
        code="kept = []\n"
        "def take():\n"
        "    while len(kept) < 64: kept.append(os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY))\n"
        "attempt(take)",
        expect="ENOSPC",
    ),
)
