"""A deployment that works is backed up, wiped, restored, and works on."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent_runner import ApiError, Client
from runner.backup import state
from runner.base.signing import TrustedKeys, verify
from runner.store.receipts import KIND, SANDBOX_KIND
from tests.support.backups import SECRET
from tests.support.deployment import (
    NO_POOL,
    Deployment,
    deployment,
    deployment_in,
    eventually,
    state_folder,
)
from tests.support.faults import running

pytestmark = pytest.mark.timeout(900)
KEEP = """
import os
from pathlib import Path
Path("kept.txt").write_text("an artifact")
print(len(os.environ["TOKEN"]), Path("given.txt").read_text())
"""
USES: dict[str, Any] = {
    "code": KEEP,
    "language": "python",
    "files": {"given.txt": {"key": "given.txt"}},
    "secret_env": {"TOKEN": "token"},
}
MADE_ANEW = {"log", "objects", "restoring", "run", "services", "templates"}
"""What a state folder holds that no backup copies as files."""


def runner(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with a state folder and no other setting, as beside `runner dev`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNNER_")}
    return subprocess.run(
        [sys.executable, "-m", "runner", *arguments],
        env={**kept, "COLUMNS": "120", "RUNNER_STATE_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@contextmanager
def load(of: Deployment, tenant: str) -> Iterator[list[str]]:
    """Run executions, and write and remove files, inside the context; yield what has ended."""
    client, stop, ended = of.client(tenant), threading.Event(), list[str]()

    def run() -> None:
        for number in range(10_000):
            if stop.is_set():
                return
            with suppress(ApiError):
                client.files.put(f"{number % 4}.txt", os.urandom(50_000))
                if number % 3 == 2:
                    client.files.delete(f"{number % 4}.txt")
                ended.append(client.run(code="open('a', 'w').write('x')", language="python").id)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        eventually(lambda: len(ended) > 2)
        yield ended
    finally:
        stop.set()
        thread.join()


@dataclass
class Before:
    """What a deployment held when it was backed up."""

    key: str
    ran: Any
    receipt: str
    records: list[dict[str, Any]]
    snapshot: str
    living: str
    queued: str
    held: str
    ended: list[str]
    known: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return where the backup and its private keys are."""
    folder = tmp_path_factory.mktemp("backups")
    return folder / "backup", folder / "keys"


@pytest.fixture(scope="module")
def before(image: None, folders: tuple[Path, Path]) -> Before:
    """Back up a deployment under load, and wipe it."""
    with deployment(slots=2, **NO_POOL) as made:
        # One at a time: what is submitted after the program that takes long waits.
        key = made.key("acme", max_concurrency=1)
        client = made.clients.enter_context(Client(made.url, key))
        client.put_secret("token", SECRET)
        client.files.put("given.txt", b"a file")
        ran = client.run(**USES)
        with client.sandboxes.create(size="nano") as first:
            first.run("echo kept > kept.txt")
            snapshot = first.snapshot("kept").id
        living = client.sandboxes.create(size="nano", timeout_s=None).id
        with load(made, "busy") as ended:
            done = list(ended)
            slow = running(client, seconds=150, on_worker_loss="retry")
            queued = client.submit(command=["true"], size="nano").id
            found = Before(
                key, client.get(ran.id), client.receipt(ran.id),
                client.audit(resource_id=ran.id)["items"], snapshot, living, queued, slow, done,
            )  # fmt: skip
            told = made_backup(made, *folders)
        assert told.returncode == 0, told.stderr
        here = {path.name for path in made.stack.settings.state_dir.iterdir()}
        copied = {pattern.partition("/")[0] for pattern in (*state.PUBLIC, *state.PRIVATE)}
        assert here <= copied | MADE_ANEW, "is this to be backed up?"
    return found


def made_backup(of: Deployment, backup: Path, keys: Path) -> "subprocess.CompletedProcess[str]":
    """Back up a running deployment by its command."""
    services = of.stack.services
    settings = of.stack.settings
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("RUNNER_")},
        "RUNNER_STATE_DIR": str(settings.state_dir),
        "RUNNER_DATABASE_SUPERUSER_URL": services.superuser_url,
    }
    return subprocess.run(
        [sys.executable, "-m", "runner", "backup", str(backup), "--private-keys", str(keys)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_deployment_under_load_is_restored_and_works_on(
    before: Before, folders: tuple[Path, Path]
) -> None:
    """Results, artifacts, files, receipts, logs, secrets and snapshots are what they were.

    What was queued or asked to run again runs; what lived ends as lost, with a receipt.
    """
    backup, keys = folders
    with state_folder() as folder:
        told = runner(folder, "restore", str(backup), "--private-keys", str(keys))
        assert told.returncode == 0, told.stdout + told.stderr
        assert "acme" in told.stdout
        assert "does not hold" not in told.stdout
        assert "had not ended" in told.stderr
        assert "1 living sandbox will end as lost" in told.stderr
        with deployment_in(folder, slots=2, **NO_POOL) as made:
            client = made.clients.enter_context(Client(made.url, before.key))
            assert client.get(before.ran.id) == before.ran
            with client.download(before.ran.id, "kept.txt") as pieces:
                assert b"".join(pieces) == b"an artifact"
            assert client.receipt(before.ran.id) == before.receipt
            trusted = TrustedKeys(folder).read()
            assert verify(before.receipt, KIND, trusted)
            # The log also records who reads a receipt.
            recorded = client.audit(resource_id=before.ran.id)["items"]
            assert recorded[: len(before.records)] == before.records
            # Restored as it was, it runs on until its lease is seen to have expired.
            eventually(lambda: client.get(before.held).attempt == 2)
            client.cancel(before.held)
            assert settled_state(client, before.queued) == "succeeded"
            lost = eventually(lambda: ended_sandbox(client, before.living))
            assert lost.reason == "lost"
            assert verify(client.sandboxes.receipt(before.living), SANDBOX_KIND, trusted)
            again = client.run(**USES)
            assert again.stdout is not None
            assert again.stdout.text == f"{len(SECRET)} a file\n"
            with client.sandboxes.create(snapshot=before.snapshot) as copy:
                assert copy.run("cat kept.txt").stdout.text == "kept\n"
            assert client.verify_audit()["valid"]
            ours = made.client("busy")
            assert all(ours.get(id_).ended for id_ in before.ended)
            assert ours.verify_audit()["valid"]
            twice = made.sql(
                "SELECT resource_id FROM audit_events WHERE action = 'execution:end' "
                "GROUP BY 1 HAVING count(*) <> 1"
            )
            assert twice == []


def settled_state(client: Client, id_: str) -> str:
    """Wait until an execution has ended, and return its state."""
    eventually(lambda: client.get(id_).ended)
    return client.get(id_).state


def ended_sandbox(client: Client, id_: str) -> Any:
    """Return a sandbox's description once it has ended."""
    found = client.sandboxes.get(id_).info
    return found if found.state == "ended" else None


def test_what_must_not_run_twice_is_cancelled_by_the_restore(
    before: Before, folders: tuple[Path, Path]
) -> None:
    """The log of each tenant says so."""
    backup, keys = folders
    with state_folder() as folder:
        told = runner(
            folder, "restore", str(backup), "--private-keys", str(keys), "--cancel-waiting",
            "--json",
        )  # fmt: skip
        assert told.returncode == 0, told.stdout + told.stderr
        assert json.loads(told.stdout)["cancelled"] >= 2
        with deployment_in(folder, **NO_POOL) as made:
            client = made.clients.enter_context(Client(made.url, before.key))
            for id_ in (before.queued, before.held):
                assert settled_state(client, id_) == "cancelled"
                (record,) = client.audit(resource_id=id_, action="execution:cancel")["items"]
                assert record["record"]["actor"] == "system:operator"
            assert client.verify_audit()["valid"]


def test_a_deployment_that_does_not_run_is_backed_up_as_well(
    before: Before, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """The command runs PostgreSQL for as long as it needs; what it makes is the same again."""
    backup, keys = folders
    with state_folder() as folder:
        told = runner(folder, "restore", str(backup), "--private-keys", str(keys))
        assert told.returncode == 0, told.stdout + told.stderr
        options = ("--no-private-keys", "--json")
        again = runner(folder, "backup", str(tmp_path / "again"), *options)
        assert again.returncode == 0, again.stderr
        refused = runner(folder, "restore", str(backup), "--private-keys", str(keys))
        assert refused.returncode == 78
        assert "not empty" in refused.stderr
    made = json.loads(again.stdout)["contents"]
    first = json.loads(runner(tmp_path, "restore", str(backup), *options, "--check").stdout)[
        "contents"
    ]
    assert made == first
