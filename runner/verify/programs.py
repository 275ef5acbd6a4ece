"""Programs that try probes: one alone, or many one after the other in one interpreter's forks.

To start an interpreter takes far longer than most probes do, above all behind gVisor. A fork has
the user, capabilities, filter, limits, namespaces and mounts of its interpreter, which was started
as any program is, so it can do what a program of its own could.
"""

import binascii
import json
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

AT_ONCE = 64
"""Probes of one program: its output stays within what is kept."""

_PRELUDE = """
import ctypes, errno, json, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def end(breached, saw, absent=False):
    sys.stdout.write('\\n' + json.dumps({'breached': breached, 'saw': str(saw), 'absent': absent}))
    sys.stdout.flush()
    os._exit(0)
def held(saw='refused'): end(False, saw)
def breached(saw='succeeded'): end(True, saw)
def absent(saw='not on this host'): end(False, saw, True)
def name(number): return errno.errorcode.get(number, str(number))
def call(number, *arguments):
    ctypes.set_errno(0)
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *given)
    return '' if result != -1 else name(ctypes.get_errno())
def refused(number, *arguments, by='EPERM'):
    saw = call(number, *arguments)
    # gVisor's filter can say EPERM only, and leaves some calls to a kernel that lacks them.
    stopped = {by, 'EPERM'} if FACTS.get('isolation') == 'gvisor' else {by}
    held(saw) if saw in stopped else breached(saw or 'succeeded')
def attempt(action):
    try: action()
    except FileNotFoundError: absent('ENOENT')
    except OSError as error: held(name(error.errno))
    breached()
FACTS = json.loads(os.environ.get('FACTS', '{}'))
"""

_FORKS = """
import binascii, signal, time, traceback, zlib
def become(code):
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        exec(compile(code, 'probe', 'exec'), globals())
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
def waited(child, until):
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended: return os.waitstatus_to_exitcode(status)
        left = until - time.monotonic()
        if left <= 0:
            # It is tried again by itself, where its sandbox ends it.
            os.kill(child, signal.SIGKILL)
            os._exit(1)
        signal.sigtimedwait([signal.SIGCHLD], min(left, 0.1))
def each(codes):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    for code in json.loads(zlib.decompress(binascii.a2b_base64(codes))):
        child = os.fork()
        if child == 0: become(code)
        code = waited(child, time.monotonic() + MOST_S)
        os.write(1, f'\\n{MARK}{code}\\n'.encode())
"""


@dataclass(frozen=True, slots=True)
class ProbeOutput:
    """What one of several probes has written, and its exit code, or a signal's number below 0."""

    stdout: bytes
    code: int


def alone(code: str) -> str:
    """Return the program that tries one probe."""
    return _PRELUDE + code


@dataclass(frozen=True, slots=True)
class Together:
    """A program that tries several probes in turn, each in a fork that may take `most_s`.

    It ends at the first one that takes longer.
    """

    program: str
    mark: bytes

    @classmethod
    def of(cls, codes: Sequence[str], most_s: float) -> "Together":
        """Return the program of these probes."""
        mark = secrets.token_hex(8)
        # Packed, nothing of it needs to be quoted on its way through a shell.
        packed = binascii.b2a_base64(zlib.compress(json.dumps(codes).encode()), newline=False)
        given = f"MARK, MOST_S = {mark!r}, {most_s!r}\neach({packed.decode()!r})\n"
        return cls(_PRELUDE + _FORKS + given, mark.encode())

    def said(self, stdout: bytes) -> list[ProbeOutput]:
        """Return what each probe said, in order; probes without an end are missing."""
        first, *others = stdout.split(self.mark)
        # Behind a mark stand the code of the probe before it and the output of the next one.
        ends = [other.partition(b"\n") for other in others]
        outputs = [first, *(output for _, _, output in ends)]
        return [
            ProbeOutput(output.strip(), int(code))
            for output, (code, _, _) in zip(outputs, ends, strict=False)
        ]
