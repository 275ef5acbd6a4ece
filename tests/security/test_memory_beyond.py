"""Memory that the kernel uses on a program's behalf counts as its sandbox's memory.

Each program makes the kernel use so much memory that the sandbox's own peak must show it, unless
the kernel counted it nowhere. Version 1 of control groups counts buffers of internet sockets apart;
the checks `resources.memory.*-sockets` compare them with and without their limit.
"""

import asyncio
from pathlib import Path

import pytest

from runner.sandbox.drive import use
from runner.words.execution import Program
from runner.words.states import Reason, State
from tests.support.sandboxes import MB, Bench

PLENTY = "import os, resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
KEPT = {
    "pipes": (
        40 * MB,
        "ends = [os.pipe() for _ in range(640)]\nfor _, end in ends: os.write(end, bytes(65536))\n",
    ),
    "unix-sockets": (
        40 * MB,
        "import socket\n"
        "pairs = [socket.socketpair() for _ in range(640)]\n"
        "for one, _ in pairs: one.send(bytes(65536))\n",
    ),
    # 192 bytes each, and the names that do not fit into one (include/linux/dcache.h).
    "dentries": (
        24 * MB,
        "for each in range(100_000):\n"
        "    try: os.stat(f'/usr/{each:0100}')\n"
        "    except FileNotFoundError: pass\n",
    ),
    "inotify-watches": (
        6 * MB,
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "names = [f'{each}'.encode() for each in range(1000)]\n"
        "for name in names: open(name, 'w').close()\n"
        "for _ in range(100):\n"
        "    fd = libc.inotify_init1(0)\n"
        "    for name in names: libc.inotify_add_watch(fd, name, 2)\n",
    ),
    "timers": (
        3 * MB,
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "for _ in range(20_000): libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p()))\n",
    ),
}


async def peak(bench: Bench, code: str) -> int:
    """Return the peak memory of a sandbox that ran this."""
    ran = await bench.python(PLENTY + code, timeout_s=80)
    assert ran.ending.exit_code == 0, ran
    assert ran.ending.usage.memory_peak_bytes is not None
    return ran.ending.usage.memory_peak_bytes


@pytest.mark.parametrize("kind", KEPT)
async def test_what_the_kernel_keeps_counts(bench: Bench, kind: str) -> None:
    """The test compares it with a program for which the kernel keeps nothing."""
    least, code = KEPT[kind]
    imports = "".join(line + "\n" for line in code.splitlines() if line.startswith("import"))
    assert await peak(bench, code) - await peak(bench, imports) >= least


SOCKETS = """
import os, resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
block = bytes(60000)
def fill():
    listener = socket.create_server(('127.0.0.1', 0), backlog=4096)
    kept = []
    while len(kept) < 3800:
        sender = socket.create_connection(listener.getsockname())
        sender.setblocking(False)
        kept += [sender, listener.accept()[0]]
        try:
            while True: sender.send(block)
        except BlockingIOError: pass
for _ in range(8):
    if os.fork() == 0:
        try: fill()
        except OSError: pass
        os.write(1, b'.')
        time.sleep(60)
time.sleep(60)
"""


def held() -> int:
    """Return the bytes that TCP holds on this host, as the host sees it (sockstat)."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        name, *words = line.split()
        if name == "TCP:":
            return int(words[words.index("mem") + 1]) * 4096
    raise LookupError("TCP:")


@pytest.mark.alone
async def test_thousands_of_sockets_end_their_sandbox(bench: Bench) -> None:
    """Each one gets its first buffers whatever the limit; together they count as memory.

    Without the keeper, they held 927 MiB for as long as the program ran.
    """
    before, too_much = held(), 0
    program = Program(("python3", "-c", SOCKETS), {})
    async with bench.sandbox(memory_mb=128) as sandbox:
        running = asyncio.create_task(use(sandbox, program, bench.within(timeout_s=20).bounds))
        while not running.done():
            await asyncio.wait({running}, timeout=0.1)
            too_much += held() - before > 2 * 128 * MB
    ran = await running
    assert ran.verdict[:2] == (State.OUT_OF_MEMORY, Reason.MEMORY_LIMIT)
    assert ran.ending.usage.cpu_s is not None
    assert too_much <= 20, "tenths of a second"
