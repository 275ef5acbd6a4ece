"""A link that delays each frame, and loses some: what netem(8) does, for kernels without it.

Two TAP devices, one at each end, and a process that carries frames from one to the other (the
kernel's networking/tuntap.rst).
"""

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runner.embedded.process import die_with_parent
from tests.support.namespaces import ip

_TUNSETIFF = 0x4004_54CA
_TAP_WITHOUT_HEADER = 0x0002 | 0x1000
_LONGEST = 65_536
_QUEUE = 2_000
"""Frames that may be on their way in one direction; a full link loses what comes next."""


@dataclass(frozen=True, slots=True)
class Delays:
    """What happens to frames, in each direction."""

    delay_s: float
    loss: float = 0.0
    """The part of all frames that is lost."""


@contextmanager
def tap(name: str) -> Iterator[int]:
    """Make a TAP device in this thread's network; yield the descriptor of its other side."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", name.encode(), _TAP_WITHOUT_HEADER))
        # Large frames would only be cut into pieces by whoever carries them.
        ip("link", "set", name, "txqueuelen", str(_QUEUE))
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def relayed(one: int, other: int, delays: Delays) -> Iterator[None]:
    """Carry frames between two TAP devices inside the context, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__, str(one), str(other), str(delays.delay_s),
         str(delays.loss)],
        pass_fds=(one, other),
        preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl, no locks taken
    ) as carrying:  # fmt: skip
        try:
            yield
            if carrying.poll() is not None:
                raise RuntimeError(f"the slow link ended by itself: {carrying.returncode}")
        finally:
            carrying.kill()


def carry(one: int, other: int, delays: Delays) -> None:
    """Carry frames, for ever."""
    lots = random.Random(1)  # noqa: S311 - no secret
    other_end = {one: other, other: one}
    waiting = {one: 0, other: 0}
    order = 0
    on_their_way: list[tuple[float, int, int, bytes]] = []
    poll = select.poll()
    for each in other_end:
        poll.register(each, select.POLLIN)
    while True:
        pause_s = max(0.0, on_their_way[0][0] - time.monotonic()) if on_their_way else None
        for end, _ in poll.poll(None if pause_s is None else 1000 * pause_s):
            try:
                frame = os.read(end, _LONGEST)
            except BlockingIOError:
                continue
            if lots.random() >= delays.loss and waiting[end] < _QUEUE:
                order, waiting[end] = order + 1, waiting[end] + 1
                due = time.monotonic() + delays.delay_s
                heapq.heappush(on_their_way, (due, order, end, frame))
        while on_their_way and on_their_way[0][0] <= time.monotonic():
            _, _, end, frame = heapq.heappop(on_their_way)
            waiting[end] -= 1
            try:
                os.write(other_end[end], frame)
            except OSError:
                # The device at that end is down, as an unplugged cable is.
                continue


if __name__ == "__main__":
    carry(int(sys.argv[1]), int(sys.argv[2]), Delays(float(sys.argv[3]), float(sys.argv[4])))
