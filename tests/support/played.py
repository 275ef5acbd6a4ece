"""A hostile supervisor: the first process of a container, which plays a script of bytes."""

import zlib
from typing import Any, TypeAlias

from runner.protocol import frames, greeting
from runner.protocol.events import EVENTS, SupervisorEvent
from runner.protocol.frames import HEADER, frame
from runner.verify.forged import forged

PROGRAM = 1
"""The stream of the first program."""
FOR_EVER = 2**40

Step: TypeAlias = tuple[str, str | bytes, int]

_PLAYER = """
import socket, struct, time, zlib
PATH = '/run/sandbox/supervisor.sock'
wire = socket.socket(socket.AF_UNIX)
wire.connect(PATH)
def exactly(size):
    got = b''
    while len(got) < size:
        got += wire.recv(size - len(got))
    return got
for step, what, times in eval(zlib.decompress(bytes.fromhex(%r))):
    for _ in range(times):
        if step == 'say':
            wire.sendall(what)
        elif step == 'hear':
            exactly(struct.unpack(what, exactly(struct.calcsize(what)))[-1])
        elif step == 'hang up':
            wire.close()
        elif step == 'connect again':
            try:
                socket.socket(socket.AF_UNIX).connect(PATH)
            except FileNotFoundError:
                continue
            wire.close()
time.sleep(60)
"""


def player(steps: tuple[Step, ...]) -> list[str]:
    """Return the command that plays these steps, and then waits."""
    script = zlib.compress(repr(steps).encode()).hex()
    return ["/usr/bin/python3", "-c", _PLAYER % script]


def sends(*parts: bytes, times: int = 1) -> Step:
    """Send bytes."""
    return ("say", b"".join(parts), times)


def pieces(kind: bytes, payload: bytes, *, stream: int = PROGRAM, times: int = 1) -> Step:
    """Send a frame of bytes."""
    return sends(frame(kind, stream, payload), times=times)


def says(*events: SupervisorEvent, stream: int = PROGRAM, times: int = 1) -> Step:
    """Send valid events."""
    return sends(*(frame(b"C", stream, EVENTS.encode(each)) for each in events), times=times)


def lies(event: SupervisorEvent, /, *, stream: int = PROGRAM, **changes: Any) -> Step:
    """Send an event with fields changed or added."""
    return sends(frame(b"C", stream, forged(event, **changes)))


def head(kind: bytes, length: int, *, stream: int = PROGRAM) -> Step:
    """Send only the header of a frame."""
    return sends(HEADER.pack(kind, stream, length))


def hears(times: int = 1) -> Step:
    """Wait for this many frames."""
    return ("hear", frames.HEADER.format, times)


def greets(word: greeting.FirstWord, *, times: int = 1) -> Step:
    """Send the first message of the first exchange."""
    return sends(greeting.framed(greeting.FIRST_WORDS.encode(word)), times=times)


HANGS_UP: Step = ("hang up", b"", 1)
CONNECTS_AGAIN: Step = ("connect again", b"", 1)
"""Try to connect a second time; hang up if that works."""
AGREES: tuple[Step, ...] = (
    greets(greeting.Greeting(greeting.GENERATIONS)),
    ("hear", greeting.HEADER.format, 1),
)
"""A correct first exchange."""
