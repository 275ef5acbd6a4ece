"""Parts of tests of failures: programs that take a while, and how a worker is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import SecretStr

from agent_runner import Client, Unavailable
from runner.node.service import worker
from tests.support.deployment import Deployment, eventually, state_of

HELD = "import time\nprint('begun', flush=True)\ntime.sleep({seconds})\nprint('done')"
"""A program that takes this many seconds."""


def running(client: Client, *, seconds: int = 8, **options: Any) -> str:
    """Submit a program that takes a while; return its id once it runs."""
    submitted = client.submit(code=HELD.format(seconds=seconds), language="python", **options)
    eventually(lambda: state_of(client, submitted)() == "running")
    return submitted.id


def kill_worker(own: Deployment) -> None:
    """End the worker as a crash would."""
    own.portal.call(own.worker.stop, signal.SIGKILL)


@contextmanager
def worker_here(own: Deployment, database_url: str | None = None) -> Iterator[None]:
    """Run the deployment's worker in this process, where a test can take a part of it away."""
    own.portal.call(own.worker.stop)
    services = own.stack.services
    working = worker(
        own.stack.settings,
        database_url=SecretStr(database_url or services.worker_url),
        redis_url=SecretStr(services.redis_url),
    )
    with own.portal.wrap_async_context_manager(working):
        yield


def accepted(client: Client) -> bool:
    """Return whether an execution is accepted and has run."""
    try:
        return client.run(command=["true"], size="nano").state == "succeeded"
    except Unavailable:
        return False


def health(own: Deployment) -> tuple[int, str]:
    """Return the exit code of `runner worker --healthy`, and what it prints."""
    told = subprocess.run(
        [sys.executable, "-m", "runner", "worker", "--healthy"],
        env={**os.environ, "RUNNER_STATE_DIR": str(own.stack.settings.state_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return told.returncode, told.stdout + told.stderr


def settled(client: Client, id_: str) -> object:
    """Return the execution if it has ended; if the API does not answer, it has not."""
    try:
        found = client.get(id_)
    except Unavailable:
        return None
    return found if found.ended else None
