"""Further nodes of a deployment, each a worker process with a state folder of its own.

On one host they share its Docker daemon: containers are told apart by their nodes' labels, and a
sandbox's user by its container's name, which the daemon gives away once. Whoever gives each node a
daemon or a network of its own passes `docker_url`, and overrides what else differs.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import docker

from runner.base import health
from runner.base.settings import Settings
from runner.door.identity import DoorRole, certify
from runner.embedded.stack import Child
from tests.support.deployment import Deployment, eventually, spawn, state_folder

STOPS_AFTER_S = 60.0


@dataclass(frozen=True)
class Node:
    """A worker process as a node of a deployment."""

    settings: Settings
    child: Child

    @property
    def name(self) -> str:
        """The node's name in the deployment."""
        return self.settings.node_id

    def start(self) -> None:
        """Start the process, and wait until it works."""
        self.child.start()
        eventually(self._works)

    def stop(self) -> None:
        """End the process as an operator does, by SIGTERM, or by SIGKILL after a while."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process with no chance to do anything more."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the process as if its host hung."""
        os.kill(self.child.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.child.pid, signal.SIGCONT)

    def log(self) -> str:
        """Return what it has written."""
        return (self.settings.state_dir / "log" / "worker.log").read_text("utf-8", "replace")

    def containers(self) -> list[dict[str, Any]]:
        """Return its containers, running or not."""
        client = docker.APIClient(self.settings.docker_url, version="auto", timeout=30)
        try:
            label = {"label": f"runner.node={self.name}"}
            found: list[dict[str, Any]] = client.containers(all=True, filters=label)
            return found
        finally:
            client.close()

    def remove_containers(self) -> None:
        """Remove what a node that was killed has left, as it would when it came back."""
        client = docker.APIClient(self.settings.docker_url, version="auto", timeout=60)
        try:
            for each in self.containers():
                client.remove_container(each["Id"], force=True)
        finally:
            client.close()

    def _works(self) -> bool:
        assert self.child.running(), self.child.last_words()
        return not health.problems(self.settings.run_dir, self.child.pid)

    def _end(self, by: signal.Signals) -> None:
        asyncio.run(self.child.stop(by))


@contextmanager
def further_node(
    made: Deployment, name: str, *, authority: Path | None = None, **settings: Any
) -> Iterator[Node]:
    """Run a further node of a deployment inside the context; nothing is left of it afterwards.

    With `authority`, its door can be reached from other hosts, at a port of its own.
    """
    with state_folder() as folder:
        if authority is not None:
            settings["door_address"] = f"127.0.0.1:{free_port()}"
        node = prepared(made, folder, name, **settings)
        if authority is not None:
            held = node.settings.door_certificates
            certify(authority, held, DoorRole.NODE, node.name, timedelta(days=1))
        try:
            node.start()
            yield node
        finally:
            if node.child.running():
                node.thaw()
                node.stop()
            node.remove_containers()


def prepared(made: Deployment, folder: Path, name: str, **settings: Any) -> Node:
    """Return a node whose process was not started yet.

    What nodes of one deployment share on different hosts by a bucket and by exchanged keys, they
    share here by links to the first node's folders.
    """
    first = made.stack.settings
    own = first.model_copy(
        update={
            "node": name,
            "state_dir": folder,
            "secrets_key_file": first.secrets_key_path,
            **settings,
        }
    )
    for shared in ("objects", "trusted-keys"):
        (first.state_dir / shared).mkdir(exist_ok=True)
        (folder / shared).symlink_to(first.state_dir / shared)
    (folder / "log").mkdir()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RUNNER_")},
        **own.as_environment(),
        "RUNNER_REDIS_URL": made.stack.services.redis_url,
        "RUNNER_DATABASE_WORKER_URL": made.stack.services.worker_url,
    }
    log = folder / "log" / "worker.log"
    return Node(own, Child("worker", environment, log, stop_after_s=STOPS_AFTER_S, spawn=spawn))


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
