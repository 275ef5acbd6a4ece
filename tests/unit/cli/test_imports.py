"""A command imports little before it knows that it needs more."""

import subprocess
import sys


def test_neither_a_client_nor_the_api_loads_docker_or_a_node() -> None:
    """A command starts sooner; what listens for clients does not even have Docker's client."""
    code = (
        "import runner.cli.app, runner.api.app, sys\n"
        "print({'docker', 'runner.node', 'runner.sandbox.launch'} & sys.modules.keys())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert told.stdout == "set()\n"
