"""The proxy's process loads nothing once it has given up its rights."""

import subprocess
import sys

PROGRAM = """
import sys
import runner.egress.proxy, socket
before = set(sys.modules)
from runner.network.names import BadName, normalise
for name in ("b\\u00fccher.example", "xn--bcher-kva.example", "\\u2025.example", "xn--a.example"):
    try:
        normalise(name)
    except BadName:
        pass
socket.getaddrinfo("localhost", 80)
print(*sorted(set(sys.modules) - before))
"""


def test_names_need_no_module_that_is_not_loaded_yet() -> None:
    """The checkout may be in a folder that only root may look into."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.split() == []
