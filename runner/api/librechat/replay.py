"""The program in the sandbox that runs a model's code with LibreChat's tools as functions.

Each run begins at the code's first line, in a fresh container. Calls whose results are known return
them; when the code waits for others, the program names those on stderr, and ends. So nothing lives
while LibreChat calls its tools. It runs with the sandbox's own Python and nothing else.
"""

import ast
import asyncio
import inspect
import json
import linecache
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

ASKED = "\x1ecalls "
"""The beginning of the last line of stderr if the code waits for tools."""
TOGETHER_S = 0.05
"""How long the code may go on after a call, to make others at the same time."""
NAME = "main.py"


class Calls:
    """The calls whose results are known, and those that the code waits for."""

    def __init__(self, known: list[dict[str, Any]]) -> None:
        self._known = known
        self._wanted: list[dict[str, Any]] = []

    def function(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Return what the code calls a tool by."""

        async def call(**given: Any) -> Any:
            wanted = {"name": name, "input": json.loads(json.dumps(given))}
            for number, each in enumerate(self._known):
                if {"name": each["name"], "input": each["input"]} == wanted:
                    del self._known[number]
                    if each["is_error"]:
                        raise RuntimeError(each["error_message"] or f"the tool {name} has failed")
                    return each["result"]
            if not self._wanted:
                asyncio.get_running_loop().call_later(TOGETHER_S, self._ask)
            self._wanted.append(wanted)
            return await asyncio.get_running_loop().create_future()

        call.__name__ = name
        return call

    def _ask(self) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.write(f"\n{ASKED}{json.dumps(self._wanted)}\n")
        sys.stderr.flush()
        # No handler of the code's runs: it will be run again from its beginning.
        os._exit(0)


async def run(code: str, names: list[str], known: list[dict[str, Any]]) -> None:
    """Run code, which may use `await` outside of functions."""
    calls = Calls(known)
    place = {"__name__": "__main__", "asyncio": asyncio}
    compiled = compile(code, NAME, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waits = eval(compiled, {**place, **{name: calls.function(name) for name in names}})  # noqa: S307
    if inspect.isawaitable(waits):
        await waits


def main() -> int:
    """Run what the file says that is named on the command line; return the exit code."""
    given = json.loads(Path(sys.argv[1]).read_text())
    code = given["code"]
    linecache.cache[NAME] = (len(code), None, code.splitlines(keepends=True), NAME)
    try:
        asyncio.run(run(code, given["names"], given["known"]))
    except Exception as error:  # noqa: BLE001 - the code's own; shown as Python shows it
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename != NAME:
            frames = frames.tb_next
        traceback.print_exception(type(error), error, frames)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
