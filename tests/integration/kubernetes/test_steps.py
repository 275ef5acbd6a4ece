"""What an operator does on the way works: the commands of the page, and the script of a node."""

import asyncio
import base64
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import yaml

from runner.auth.caller import By
from runner.base.exposition import exposed
from runner.base.settings import Settings
from runner.base.signing import Signer, TrustedKeys
from runner.door import joining
from runner.door.identity import DoorIdentity, DoorRole, certify, make_authority, revoke
from runner.fleet import invitations
from runner.fleet.admission import AdmissionTerms, open_admission
from runner.store.db import Database
from tests.support.kubernetes import MANIFESTS, ROOT, STEP, Object, kubectl, of_kind, pods
from tests.support.nodes import free_port
from tests.support.pages import blocks

pytestmark = pytest.mark.timeout(600)  # kubectl may have to be downloaded first
NODE = "pool-7f3a.internal"
DAY = timedelta(days=1)
PAGE = ROOT / "docs" / "operations" / "kubernetes.md"
DRY = '#!/bin/sh\n{} "$@" --dry-run=client --output=yaml\necho ---\n'
"""kubectl that shows what it would make, and needs no cluster for that."""
BY_HAND = {"api-door", "invitations"}
"""Secrets whose content exists only once the operator's pod runs."""


class Host:
    """A host, with the folders that the pod of its worker has."""

    def __init__(self, folder: Path) -> None:
        self.state, self.invitations, self.trusted = (
            folder / name for name in ("state", "invitations", "trusted")
        )
        for each in (self.state, self.invitations, self.trusted):
            each.mkdir()
        self.settings = Settings(node=NODE, state_dir=self.state)

    async def become_node(self, admission: str) -> "subprocess.CompletedProcess[str]":
        """Run the script as the manifest does."""
        return await asyncio.to_thread(self._become_node, admission)

    def _become_node(self, admission: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", "-eu", MANIFESTS / "base" / "become-node"],
            cwd=ROOT,
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.defpath}", "RUNNER_NODE": NODE,
                "RUNNER_STATE_DIR": str(self.state), "ADMISSION": admission,
                "INVITATIONS": str(self.invitations), "TRUSTED": str(self.trusted),
            },
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    make_authority(tmp_path / "doors")
    return tmp_path / "doors"


@pytest.fixture
async def admission(operators: Database, authority: Path) -> AsyncIterator[str]:
    """Admit hosts; return where."""
    place = f"127.0.0.1:{free_port()}"
    async with open_admission(operators, AdmissionTerms(authority, DAY, {}), place):
        yield place


async def test_a_node_is_certified_by_its_invitation_and_starts_again_without_one(
    host: Host, operators: Database, authority: Path, admission: str
) -> None:
    """Without one it does not start, and says what is missing. One that was used does no harm."""
    refused = await host.become_node(admission)
    assert refused.returncode == 1
    assert f"runner nodes invite {NODE}" in refused.stderr

    made = await invitations.invite(operators, NODE, joining.public_key_of(authority), By())
    # As `kubectl create secret --from-literal` writes it: without an end of line.
    (host.invitations / NODE).write_text(made.token)
    joined = await host.become_node(admission)
    assert joined.returncode == 0, joined.stderr
    key = DoorIdentity(host.settings.door_certificates, DoorRole.NODE).key.public_key()

    again = await host.become_node(admission)
    assert (again.returncode, "refused" in again.stderr) == (0, True)
    (host.invitations / NODE).unlink()
    assert (await host.become_node("127.0.0.1:1")).returncode == 0
    assert DoorIdentity(host.settings.door_certificates, DoorRole.NODE).key.public_key() == key


async def test_a_node_trusts_the_keys_that_are_listed_and_knows_what_was_revoked(
    host: Host, authority: Path, tmp_path: Path
) -> None:
    certify(authority, host.settings.door_certificates, DoorRole.NODE, host.settings.node_id, DAY)
    certify(authority, tmp_path / "stolen", DoorRole.API, "api", DAY)
    revoke(authority, DoorRole.API, "api")
    (host.trusted / "revoked.pem").write_bytes((authority / "revoked.pem").read_bytes())
    (key,) = Signer.open(tmp_path / "other").public_keys
    (host.trusted / "pool-1.pub").write_text(key.pem)

    done = await host.become_node("127.0.0.1:1")
    assert done.returncode == 0, done.stderr
    assert TrustedKeys(host.state).read() == (key,)
    assert len(DoorIdentity(host.settings.door_certificates, DoorRole.NODE).taken_back) == 1


def made_by_the_page(folder: Path) -> list[Object]:
    """Type what the page says about Secrets, and return the objects that it makes."""
    deploy = shutil.copytree(ROOT / "deploy", folder / "deploy")
    subprocess.run([deploy / "make-secrets", folder / "secrets"], check=True, timeout=60)
    subprocess.run(
        [deploy / "redis-users", folder / "secrets"], check=True, timeout=60, capture_output=True
    )
    for name in ("access", "secret"):
        (folder / "secrets" / f"runner_objects_{name}_key").write_text(f"{name} of the bucket\n")
    (folder / "trusted").mkdir()
    (folder / "trusted" / "ca.pem").write_text("a certificate")
    (folder / "bin").mkdir()
    dry = folder / "bin" / "kubectl"
    dry.write_text(DRY.format(kubectl()))
    dry.chmod(0o755)
    (block,) = (each for each in blocks("sh", PAGE) if each.mark == STEP)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=folder,
        env={
            "PATH": f"{dry.parent}:{os.defpath}", "KUBECONFIG": os.devnull,
            "DATABASE": "db.internal:5432", "REDIS": "redis.internal:6379",
            "DATABASE_TLS": "?sslmode=verify-full", "REDIS_TLS": "?ssl_ca_certs=/ca.pem",
        },
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def given(secret: Object, folder: Path) -> dict[str, str]:
    """Return the settings that a process has if this Secret is mounted into its pod."""
    mounted = folder / f"mounted-{secret['metadata']['name']}"
    mounted.mkdir()
    for name, value in secret["data"].items():
        (mounted / name).write_bytes(base64.b64decode(value))
    done = subprocess.run(
        [ROOT / "deploy" / "entrypoint", "env"],
        env={"PATH": os.defpath, "SECRETS_DIR": str(mounted)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    lines = (line.partition("=") for line in done.stdout.splitlines())
    return {name: value for name, _, value in lines if name.startswith("RUNNER_")}


def test_the_page_makes_the_secrets_that_the_pods_mount(
    whole: list[Object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the namespaces of these pods; each holds settings, and its own process's logins alone."""
    made = made_by_the_page(tmp_path)
    assert {each["metadata"]["namespace"] for each in of_kind(made, "ConfigMap")} == {
        each["metadata"]["name"] for each in of_kind(made, "Namespace")
    }
    secrets = {each["metadata"]["name"]: each for each in of_kind(made, "Secret")}
    for pod in pods(whole).values():
        for volume in pod.spec.get("volumes", ()):
            if name := volume.get("secret", {}).get("secretName"):
                if name in BY_HAND:
                    assert f"create secret generic {name}" in PAGE.read_text()
                else:
                    assert secrets[name]["metadata"]["namespace"] == pod.namespace
    shared = {"RUNNER_SECRETS_KEY", "RUNNER_OBJECTS_ACCESS_KEY", "RUNNER_OBJECTS_SECRET_KEY"}
    logins = {
        "api": {"RUNNER_DATABASE_API_URL", "RUNNER_REDIS_URL", *shared},
        "worker": {"RUNNER_DATABASE_WORKER_URL", "RUNNER_REDIS_URL", *shared},
        "operator": {
            "RUNNER_SECRETS_KEY",
            *(f"RUNNER_DATABASE_{who}_URL" for who in ("OWNER", "OPERATOR", "API", "WORKER")),
        },
    }
    assert secrets.keys() == logins.keys()
    for name, secret in secrets.items():
        found = given(secret, tmp_path)
        assert found.keys() == logins[name]
        for variable, value in found.items():
            monkeypatch.setenv(variable, value)
        if name != "operator":
            assert found["RUNNER_REDIS_URL"].startswith(f"rediss://runner_{name}:")
            assert found[f"RUNNER_DATABASE_{name.upper()}_URL"].endswith(
                "@db.internal:5432/runner?sslmode=verify-full"
            )
    assert Settings().objects_access_key is not None


def test_prometheus_reads_at_the_pods_address_what_a_worker_tells_on_loopback() -> None:
    """No longer than the worker answers; and it ends with its pod."""
    pod, port = "127.0.0.2", free_port()
    program = MANIFESTS / "components" / "monitoring" / "pass_on.py"
    passing = subprocess.Popen([sys.executable, "-I", program, pod, str(port)])
    try:
        asyncio.run(_read(pod, port, told=b"runner_slots 8\n" * 100_000))
    finally:
        passing.terminate()
        assert passing.wait(30) == 0


async def _read(pod: str, port: int, *, told: bytes) -> None:
    async with exposed(port, lambda: told), httpx.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx.ConnectError):
                answer = await client.get(f"http://{pod}:{port}/metrics")
                break
            await asyncio.sleep(0.1)
        assert answer.content == told
        other = await client.get(f"http://{pod}:{port}/other")
        assert other.status_code == 404
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://{pod}:{port}/metrics")
