"""Python imports this at its start where this folder is on PYTHONPATH (see the `site` module).

In a worker, it notes each call of our own code that leads from one module into another while
executions are carried out, in the order of the first time: each is a line of JSON in the file
FOLLOWED, `[caller's module, called module, called function]`. It must run in every state of the
code since `aebdd1e`, so it imports nothing of ours.
"""

import contextvars
import json
import os
import sys
import threading
from types import FrameType

WHERE = os.environ.get("FOLLOWED")
FIRST = "Executor._execute"
"""The function that carries out one claimed execution, in every state of the code."""

_follows: contextvars.ContextVar[bool] = contextvars.ContextVar("follows", default=False)
_seen: set[tuple[str, str, str]] = set()


def _module(frame: FrameType) -> str | None:
    """Return our own module that a frame is of; generated functions are of none."""
    name: str = frame.f_globals.get("__name__", "")
    return name if name.startswith("runner.") and frame.f_code.co_filename[0] != "<" else None


def _caller(frame: FrameType) -> str | None:
    """Return the nearest of our own modules above a frame."""
    above = frame.f_back
    while above is not None:
        if (found := _module(above)) is not None:
            return found
        above = above.f_back
    return None


def _follow(frame: FrameType, event: str, _: object) -> None:
    if event != "call" or (module := _module(frame)) is None:
        return
    function = frame.f_code.co_qualname
    if function == FIRST:
        # The tasks that are made from here on are followed, too.
        _follows.set(True)
    elif _follows.get() and (caller := _caller(frame)) not in {None, module}:
        stop = (str(caller), module, function)
        if stop not in _seen:
            _seen.add(stop)
            with open(str(WHERE), "a") as kept:  # noqa: PTH123 - pathlib costs each start 10 ms
                kept.write(json.dumps(stop) + "\n")


if WHERE and "worker" in sys.argv[1:2]:
    threading.setprofile(_follow)
    sys.setprofile(_follow)
