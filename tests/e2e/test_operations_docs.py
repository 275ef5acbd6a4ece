"""The commands on the operators' pages do what the pages say: install, back up, restore."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest

from agent_runner import Client
from runner.base.signing import TrustedKeys, verify
from runner.embedded import postgres
from runner.embedded.services import Services, services
from runner.store.receipts import KIND
from tests.support import kubernetes
from tests.support.backups import SECRET
from tests.support.deployment import eventually, state_folder
from tests.support.pages import EXAMPLE, blocks

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[2]
INSTALL = ("install", "settings", "migrate", "image")
START = ("start-api", "start-worker")
RESTORE = ("restore-settings", "settings", "restore")
SHELL = ("bash", "-euo", "pipefail", "-c")
KEEP = """
import os
from pathlib import Path
Path("kept.txt").write_text("an artifact")
print(len(os.environ["TOKEN"]), Path("given.txt").read_text())
"""


def steps() -> dict[str, str]:
    """Return the pages' blocks of commands by their names, each of which is unique."""
    named = [each for each in blocks("sh") if each.mark not in {"", EXAMPLE}]
    found = {each.mark: each.text for each in named}
    assert len(found) == len(named)
    return found


@dataclass
class Host:
    """A host as an operator has it: services, a checkout, and nothing of ours yet."""

    folder: Path
    services: Services
    port: int

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the pages have the operator export."""
        sockets = self.services.postgres.url("x").partition("host=")[2]
        spec = importlib.util.find_spec(postgres.PACKAGE)
        assert spec is not None
        assert spec.origin is not None
        programs = [
            Path(spec.origin).parent / postgres.INSTALL / "bin",
            Path(sys.executable).parent,
        ]
        inherited = {k: v for k, v in os.environ.items() if k in {"RUNNER_DOCKER_URL", "HOME"}}
        return {
            **inherited,
            "PATH": ":".join([*map(str, programs), "/usr/local/bin:/usr/bin:/bin"]),
            "PGHOST": sockets,
            "PGUSER": "postgres",
            "DATABASE": quote(sockets, safe=""),
            "REDIS": self.services.redis_url,
            "RUNNER_STATE_DIR": str(self.folder / "state"),
            "RUNNER_PORT": str(self.port),
            "RUNNER_POOL": "0",
        }

    @property
    def checkout(self) -> Path:
        """The folder in which commands run."""
        return self.folder / "checkout"

    def run(self, *names: str, **variables: str) -> str:
        """Run the pages' blocks with these names and return what the last one printed."""
        said = ""
        for name in names:
            ran = subprocess.run(
                [*SHELL, steps()[name]],
                cwd=self.checkout, env=self.environment | variables, capture_output=True, text=True,
                timeout=120, check=False,
            )  # fmt: skip
            assert ran.returncode == 0, f"{name}:\n{ran.stdout}\n{ran.stderr}"
            said = ran.stdout
        return said

    @contextmanager
    def started(self, *names: str) -> Iterator[str]:
        """Start processes by the pages' blocks inside the context; yield the API's address."""
        processes = []
        try:
            for name in names:
                with (self.folder / f"{name}.log").open("wb") as log:
                    processes.append(
                        subprocess.Popen(
                            [*SHELL, steps()[name]],
                            cwd=self.checkout, env=self.environment, stdout=log, stderr=log,
                        )
                    )  # fmt: skip
            url = f"http://127.0.0.1:{self.port}"
            eventually(lambda: answers(url))
            yield url
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(60)


def answers(url: str) -> bool:
    """Return whether the API is ready."""
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


@contextmanager
def host() -> Iterator[Host]:
    """Run PostgreSQL and Redis with nothing in them, beside a checkout of the project."""
    with state_folder() as folder, services(folder, ephemeral=True) as running:
        with psycopg.connect(running.postgres.url("postgres", "postgres"), autocommit=True) as own:
            own.execute("DROP DATABASE runner")
            own.execute("DROP ROLE runner_owner")
        made = Host(folder, running, free_port())
        made.checkout.mkdir()
        (made.checkout / "deploy").symlink_to(ROOT / "deploy")
        (folder / "state").mkdir(0o711)
        yield made


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def installed(image: None) -> Iterator[Host]:
    """Return a host that was installed as the page says."""
    with host() as made:
        made.run(*INSTALL)
        yield made


@pytest.mark.matrix
def test_what_was_backed_up_is_there_after_a_restore(installed: Host) -> None:
    """Executions, audit log, artifacts, receipts, secrets and files; what was queued runs."""
    key = installed.run("first-key").split()[-1]
    uses: dict[str, Any] = {
        "code": KEEP,
        "language": "python",
        "files": {"given.txt": {"key": "given.txt"}},
        "secret_env": {"TOKEN": "token"},
    }
    with installed.started(*START) as url, Client(url, key) as client:
        client.put_secret("token", SECRET)
        client.files.put("given.txt", b"a file")
        ran = client.run(**uses)
        receipt = client.receipt(ran.id)
        recorded = client.audit(resource_id=ran.id)["items"]
    with installed.started("start-api") as url, Client(url, key) as client:
        queued = client.submit(code="print(1)", language="python")
        assert "whole" in installed.run("back-up")
    with host() as restored:
        for kept in ("backup", "backup-keys"):
            shutil.move(installed.checkout / kept, restored.checkout / kept)
        restored.run(*RESTORE)
        with restored.started(*START) as url, Client(url, key) as client:
            assert client.get(ran.id) == ran
            with client.download(ran.id, "kept.txt") as pieces:
                assert b"".join(pieces) == b"an artifact"
            assert client.receipt(ran.id) == receipt
            assert verify(receipt, KIND, TrustedKeys(restored.folder / "state").read())
            # The log also records who reads a receipt.
            assert client.audit(resource_id=ran.id)["items"][: len(recorded)] == recorded
            assert client.verify_audit()["valid"]
            restored.run("verify", RUNNER_URL=url, RUNNER_API_KEY=key)
            assert client.wait(queued).state == "succeeded"
            again = client.run(**uses)
            assert again.stdout is not None
            assert again.stdout.text == f"{len(SECRET)} a file\n"


def test_every_step_of_the_pages_is_taken() -> None:
    """A new step must be added to a test: here, or to that of Kubernetes' page."""
    here = {*INSTALL, *START, *RESTORE, "first-key", "back-up", "verify"}
    assert set(steps()) == here | {kubernetes.STEP}


@pytest.mark.matrix
def test_a_dump_alone_cannot_be_restored(installed: Host) -> None:
    """The control: without what `runner restore` does before, the login roles are missing."""
    installed.run("back-up")
    with host() as restored:
        dump = installed.checkout / "backup" / "database.dump"
        ran = subprocess.run(
            ["pg_restore", "--create", "--exit-on-error", "--dbname", "postgres", str(dump)],
            env=restored.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert ran.returncode != 0
    assert 'role "runner_owner" does not exist' in ran.stderr
