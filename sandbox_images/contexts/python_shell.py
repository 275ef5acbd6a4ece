"""A context of Python: IPython's shell in one process, which reports what notebooks show."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys

from python_reports import ABOVE, Reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

CONTROL_IN = 3


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
