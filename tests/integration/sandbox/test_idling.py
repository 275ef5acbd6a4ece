"""A supervisor that waits holds only what its wait and the start of a program take."""

import json
from typing import Any

from runner.sandbox.drive import run
from runner.sandbox.engine.spec import container_config
from runner.verify.controls import supervisor
from runner.words.execution import Program
from tests.support.sandboxes import Bench

LOADED = """
import sys
sys.path.insert(0, "/opt/supervisor")
from serve import main
import json
print(json.dumps(list(sys.modules)))
"""
ROOM = 64 * 2**20
DOCUMENTED = """
import json, sys
sys.path.insert(0, "/opt/supervisor")
import serve
modules = [each for each in sys.modules.values() if "/opt/supervisor/" in repr(each)]
parts = [part for each in modules for part in vars(each).values()
         if getattr(part, "__module__", None) == each.__name__]
kept = [each.__doc__ for each in modules + parts if each.__doc__]
print(json.dumps([len(modules) > 5, kept, bool(json.__doc__)]))
"""
ONLY_SOME_USE = {
    "bridge": "runs with egress",
    "ctypes": "no run: `_ctypes` alone calls the C library",
    "live": "sandboxes that live, which load it on command",
    "selectors": "no run: the supervisor polls by itself",
    "socket": "no run: `_socket` alone makes the supervisor's sockets",
}
"""Modules that every idle sandbox would keep in its memory, and who uses them."""


async def test_it_loads_nothing_that_only_some_sandboxes_use(bench: Bench) -> None:
    ran = await bench.python(LOADED)
    assert ran.ending.exit_code == 0, ran.stderr
    loaded = set(json.loads(ran.stdout))
    assert {"interpreter", "run", "wire"} <= loaded
    assert loaded.isdisjoint(ONLY_SOME_USE)


async def test_it_keeps_no_docstrings_of_its_own(bench: Bench) -> None:
    ran = await bench.python(DOCUMENTED)
    assert ran.ending.exit_code == 0, ran.stderr
    found_some, kept, libraries_have_theirs = json.loads(ran.stdout)
    assert (found_some, kept, libraries_have_theirs) == (True, [], True)


async def test_it_has_no_buffer_for_output_until_a_program_starts(bench: Bench) -> None:
    """The buffer is made so large here that the control group shows whether it is there."""

    def configured(*given: Any) -> dict[str, Any]:
        made = container_config(*given)
        supervisor(f"import relay; relay.ROOM = {ROOM}")(made)
        return made

    bench.launcher.maker.configure = configured
    async with bench.sandbox() as sandbox:
        await sandbox.prepare()
        await sandbox.ping()
        waiting = sandbox.container.in_use().memory_bytes or 0
        await run(sandbox, Program(("true",), {}), bench.limits.bounds)
        ended = sandbox.container.in_use().memory_bytes or 0
    assert 0 < waiting < ROOM <= ended
