"""A new host, in a network of its own, becomes a node by one token, and then works like any."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from runner.cli.console import EXIT_SETUP
from runner.door.identity import DoorRole, certify, make_authority
from runner.door.joining import JoinToken
from runner.embedded.stack import Child
from tests.e2e.test_nodes import NODES, command, new_sandbox, node_of, nodes, said
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment, eventually, spawn, state_folder
from tests.support.namespaces import Host, further_host, in_own_network
from tests.support.nodes import STOPS_AFTER_S, Node

DAY = timedelta(days=1)
ADMISSION = "10.77.0.1:7444"
"""Where hosts join: an address of the first host that the second one reaches."""


@pytest.fixture(scope="module")
def other() -> Iterator[Host]:
    """Return a further host; this thread is on the first one meanwhile."""
    with in_own_network(), further_host() as host:
        yield host


@pytest.fixture(scope="module")
def made(image: None, other: Host) -> Iterator[Deployment]:
    """Return a deployment on the first host."""
    with deployments.deployment(slots=2, **NO_POOL) as running:
        yield running


@pytest.fixture(scope="module")
def authority(made: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the deployment's authority, by which its API is known."""
    folder = tmp_path_factory.mktemp("doors")
    make_authority(folder / "authority")
    certify(folder / "authority", made.stack.settings.door_certificates, DoorRole.API, "api-1", DAY)
    return folder / "authority"


@contextmanager
def admitting(made: Deployment, authority: Path, give: Path) -> Iterator[None]:
    """Run `runner nodes admit` inside the context."""
    log = give.with_name("admit.log")
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner", "nodes", "admit", "--authority", str(authority),
             "--listen", ADMISSION, "--give", str(give)],
            env={**plain(), "RUNNER_STATE_DIR": str(authority.parent / "state"),
                 "RUNNER_DATABASE_OPERATOR_URL": made.stack.services.operator_url},
            stdout=written,
            stderr=written,
        )  # fmt: skip
    try:
        eventually(lambda: f"hosts join at {ADMISSION}" in log.read_text())
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0, log.read_text()


def plain() -> dict[str, str]:
    """Return the environment without settings of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RUNNER_")}


def settings_for_each(made: Deployment, file: Path) -> Path:
    """Write the settings that nodes share, as an operator does once."""
    own = {"RUNNER_NODE", "RUNNER_STATE_DIR", "RUNNER_DOOR_ADDRESS"}
    first = made.stack.settings
    shared = {
        **{name: value for name, value in first.as_environment().items() if name not in own},
        "RUNNER_REDIS_URL": made.stack.services.redis_url,
        "RUNNER_DATABASE_WORKER_URL": made.stack.services.worker_url,
        "RUNNER_SECRETS_KEY_FILE": str(first.secrets_key_path),
    }
    file.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in shared.items()))
    return file


def joined(host: Host, folder: Path, token: str) -> "subprocess.CompletedProcess[str]":
    """Type `runner nodes join` on a host."""
    with host.entered():
        return subprocess.run(
            [sys.executable, "-m", "runner", "nodes", "join", ADMISSION, "-",
             "--door", f"{host.address}:7443"],
            env={**plain(), "RUNNER_STATE_DIR": str(folder)},
            input=f"{token}\n",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )  # fmt: skip


def node_in(made: Deployment, folder: Path) -> Node:
    """Return the node that a host's settings make of it. It was not started yet.

    What hosts share by a bucket and by exchanged keys, it shares by links to folders.
    """
    for shared in ("objects", "trusted-keys"):
        (folder / shared).symlink_to(made.stack.settings.state_dir / shared)
    (folder / "log").mkdir()
    written = dict(line.split("=", 1) for line in shlex.split((folder / "node.env").read_text()))
    settings = made.stack.settings.model_copy(
        update={"node": written["RUNNER_NODE"], "state_dir": folder}
    )
    log = folder / "log" / "worker.log"
    environment = {**plain(), **written}
    return Node(
        settings, Child("worker", environment, log, stop_after_s=STOPS_AFTER_S, spawn=spawn)
    )


def test_a_host_joins_takes_sandboxes_and_replaces_its_certificate(
    made: Deployment, other: Host, authority: Path, tmp_path: Path
) -> None:
    """The API reaches its door over the network. A used token is refused as a wrong one is."""
    operator: httpx.Client = made.operator()
    give = settings_for_each(made, tmp_path / "give.env")
    with state_folder() as folder, admitting(made, authority, give):
        invited = command(made, "invite", "second")
        assert invited.returncode == 0, invited.stderr
        token = invited.stdout.strip()
        assert "second" in command(made, "invitations").stdout

        run = joined(other, folder, token)
        assert run.returncode == 0, run.stderr
        assert Path(run.stdout.strip()) == folder / "node.env"
        assert (folder / "node.env").stat().st_mode & 0o777 == 0o600
        again = joined(other, folder, token)
        wrong = joined(other, folder, str(replace(JoinToken.read(token), secret="x" * 43)))
        assert (again.returncode, again.stderr) == (wrong.returncode, wrong.stderr)
        assert again.returncode == EXIT_SETUP
        assert "the token was refused" in again.stderr
        assert "used by second" in command(made, "invitations", "--all").stdout

        node = node_in(made, folder)
        try:
            with other.entered():
                node.start()
            eventually(lambda: nodes(operator).get(node.name, {}).get("state") == "ready")
            assert nodes(operator)[node.name]["door"] == f"tls://{other.address}:7443/{node.name}"

            first = made.stack.settings.node_id
            assert operator.post(f"{NODES}/{first}/drain").is_success
            client = made.http("joining")
            sandbox = new_sandbox(client)
            assert node_of(made, sandbox) == node.name
            assert "hello" in said(client, sandbox, "hello")

            token = command(made, "invite", "second").stdout.strip()
            run = joined(other, folder, token)
            assert run.returncode == 0, run.stderr
            eventually(lambda: "door_certificates_read" in node.log())
            assert "again" in said(client, sandbox, "again")
            assert client.delete(f"/v1/sandboxes/{sandbox}").is_success
            assert operator.post(f"{NODES}/{first}/resume").is_success
        finally:
            if node.child.running():
                node.stop()
            node.remove_containers()
