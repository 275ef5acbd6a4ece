"""A context of Python: IPython's shell in one process, which reports what notebooks show."""

from __future__ import annotations

import binascii
import fcntl
import json
import math
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

CONTROL_IN, CONTROL_OUT = 3, 4
ABOVE = 64
PIECE = 16 * 1024
MOST_NAME = 256
MOST_VALUE = 16 * 1024
MOST_TRACE = 64 * 1024
MOST_INLINE = 192 * 1024
"""A value that is no text is reported up to this length as JSON, as it cannot be cut."""


class Reports:
    """Tells what happens, in lines that begin with the token."""

    def __init__(self, token: str) -> None:
        self._token = token
        # No child process has this descriptor.
        self._fd = fcntl.fcntl(CONTROL_OUT, fcntl.F_DUPFD_CLOEXEC, ABOVE)
        os.close(CONTROL_OUT)
        self._lines = bytearray()

    def say(self, say: str, **fields: object) -> None:
        """Report something."""
        self._lines += f"{self._token} {json.dumps({'say': say, **fields})}\n".encode()
        if len(self._lines) > PIECE:
            self.flush()

    def flush(self) -> None:
        """Write what was reported; before that, what was printed."""
        for output in (sys.stdout, sys.stderr):
            try:
                output.flush()
            except (OSError, ValueError, AttributeError):
                # The code has closed it or put something else in its place.
                continue
        while self._lines:
            size = os.write(self._fd, self._lines)
            del self._lines[:size]

    def result(self, values: dict[str, Any], *, main: bool) -> None:
        """Report a result, by kind."""
        for mime, value in values.items():
            if isinstance(value, bytes):
                text, is_json = binascii.b2a_base64(value, newline=False).decode(), False
            elif isinstance(value, str):
                text, is_json = value, False
            else:
                text, is_json = dumped(value), True
                if len(text) > MOST_INLINE:
                    continue
            for at in range(0, max(len(text), 1), PIECE):
                self.say("value", mime=mime, json=is_json, text=text[at : at + PIECE])
        self.say("result", main=main)
        self.flush()


def dumped(value: object) -> str:
    """Return a value as JSON; what JSON does not know becomes text."""
    try:
        return json.dumps(value, allow_nan=False, default=str)
    except (ValueError, TypeError):
        return json.dumps(plain(value), default=str)


def plain(value: object) -> object:
    """Return the same with null for numbers that JSON does not know."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


class Interrupts:
    """Lets SIGINT interrupt code, and nothing else."""

    def __init__(self) -> None:
        self.running = False
        signal.signal(signal.SIGINT, self._heard)

    def _heard(self, _: int, __: FrameType | None) -> None:
        if self.running:
            raise KeyboardInterrupt


def serve() -> None:
    """Run what comes, until nothing more can come."""
    interrupts = Interrupts()
    source = os.fdopen(fcntl.fcntl(CONTROL_IN, fcntl.F_DUPFD_CLOEXEC, ABOVE), encoding="utf-8")
    os.close(CONTROL_IN)
    reports = Reports(source.readline().strip())
    for output in (sys.stdout, sys.stderr):
        output.reconfigure(line_buffering=True, errors="backslashreplace")
    if os.environ.get("MPLBACKEND", "Agg").lower() == "agg":  # what draws for nobody
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    os.environ.setdefault("IPYTHONDIR", "/tmp/.ipython")  # noqa: S108 - the sandbox's own
    try:
        import context_shell  # noqa: PLC0415 - an image may have no IPython
    except ImportError as error:
        reports.say("unavailable", detail=f"Python contexts need IPython in the image: {error}")
        reports.flush()
        return
    shell = context_shell.make_shell(reports)
    # As in `python3 -c`: modules are looked for where the code is, and not here.
    sys.path[0] = ""
    sys.argv = [""]
    reports.say("ready")
    reports.flush()
    for line in source:
        said_to_run = json.loads(line)
        run(shell, reports, interrupts, said_to_run["code"], said_to_run["env"])


def run(
    shell: Any, reports: Reports, interrupts: Interrupts, code: str, env: dict[str, str]
) -> None:
    """Run one piece of code, and report that it has ended."""
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    ok = False
    try:
        interrupts.running = True
        ok = bool(shell.run_cell(code, store_history=True).success)
        interrupts.running = False
    except KeyboardInterrupt:
        # Of code that awaited something. IPython has reported the others.
        interrupts.running = False
        shell.execution_count += 1
        reports.say("error", error="KeyboardInterrupt", value="", traceback="KeyboardInterrupt")
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    reports.say("ended", count=shell.execution_count - 1, exit_code=0 if ok else 1)
    reports.flush()


if __name__ == "__main__":
    serve()
