"""`runner sandbox forward`: a port of this host that stands for one in a sandbox."""

import re
import time
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from agent_runner import ApiError, Forward
from agent_runner.transport import LOOPBACK
from runner.cli.console import err, fail, out, read_settings, reports_errors
from runner.cli.ids import find_sandbox
from runner.cli.run import Interrupted, Interruption
from runner.cli.sandbox_use import SandboxArgument
from runner.cli.session import client

LOOK_S = 0.2
MAX_PORT = 65535
_PORTS = re.compile(r"(?:([0-9]{1,5}):)?([0-9]{1,5})", re.ASCII)


@reports_errors
def forward(
    sandbox_id: SandboxArgument,
    ports: Annotated[
        str,
        typer.Argument(
            metavar="[LOCAL:]PORT",
            help="The port inside; before it, the port here: the same by default, 0 for any free.",
        ),
    ],
) -> None:
    """Listen on 127.0.0.1 here, and carry each connection to a port inside, until Ctrl-C.

    Whatever speaks TCP can use it: a browser, a database's client, ssh.
    """
    local, port = _read(ports)
    with client(read_settings()) as api, Interruption() as interruption:
        sandbox = find_sandbox(api, sandbox_id)
        try:
            with sandbox.ports.forward(port, local) as listening, suppress(Interrupted):
                out.print(f"{LOOPBACK}:{listening.port}", highlight=False)
                interruption.await_()
                _report(listening)
        except OSError as error:
            fail(f"port {local} of this host: {error.strerror}; give another one as LOCAL:PORT")


def _report(listening: Forward) -> NoReturn:
    """Say why connections fail, until somebody interrupts."""
    told: ApiError | None = None
    while True:
        if listening.failure is not told:
            told = listening.failure
            err.print(f"a connection failed: {told}", highlight=False, markup=False)
        time.sleep(LOOK_S)


def _read(ports: str) -> tuple[int, int]:
    found = _PORTS.fullmatch(ports)
    port = int(found[2]) if found else 0
    local = int(found[1] or port) if found else 0
    if not (0 < port <= MAX_PORT and local <= MAX_PORT):
        fail(f"{ports}: give a port, or LOCAL:PORT, such as 8000 or 8080:8000")
    return local, port
