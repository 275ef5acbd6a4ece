"""A supervisor that waits holds only what its wait and the start of a program take."""

import json

from tests.support.sandboxes import Bench

LOADED = """
import sys
sys.path.insert(0, "/opt/supervisor")
from serve import main
import json
print(json.dumps(list(sys.modules)))
"""
ONLY_SOME_USE = {
    "bridge": "runs with egress",
    "ctypes": "no run: `_ctypes` alone calls the C library",
    "live": "sandboxes that live, which load it on command",
}
"""Modules that every idle sandbox would keep in its memory, and who uses them."""


async def test_it_loads_nothing_that_only_some_sandboxes_use(bench: Bench) -> None:
    ran = await bench.python(LOADED)
    assert ran.ending.exit_code == 0, ran.stderr
    loaded = set(json.loads(ran.stdout))
    assert {"interpreter", "run", "wire"} <= loaded
    assert loaded.isdisjoint(ONLY_SOME_USE)
