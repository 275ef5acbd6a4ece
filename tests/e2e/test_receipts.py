"""Receipts, through the whole stack: what they say, and that nobody can change it."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runner import Client
from agent_runner.errors import NotFound
from runner.base.settings import Settings
from runner.base.signing import BadSignature, PublicKey, verify
from runner.store.receipts import KIND, SANDBOX_KIND
from tests.support.deployment import Deployment, deployment

CODE = "open('made.txt', 'w').write('x' * 10); print('hello')"


@pytest.fixture(scope="module")
def client(shared: Deployment) -> Client:
    """Return a client of a tenant that only this module uses."""
    return shared.client("receipted")


@pytest.fixture(scope="module")
def receipt(client: Client) -> str:
    """Return the receipt of one real execution."""
    ran = client.run(code=CODE, language="python")
    assert ran.state == "succeeded"
    return client.receipt(ran.id)


@pytest.fixture(scope="module")
def keys(client: Client) -> tuple[PublicKey, ...]:
    """Return the deployment's keys, as the API shows them."""
    return tuple(PublicKey(id_, pem) for id_, pem in client.signing_keys().items())


def test_a_receipt_says_what_ran_in_what(receipt: str, keys: tuple[PublicKey, ...]) -> None:
    """It has hashes, times, and the isolation that the kernel reported."""
    body = verify(receipt, KIND, keys)
    assert body["state"] == "succeeded"
    assert body["exit_code"] == 0
    assert [(each["path"], each["size"]) for each in body["artifacts"]] == [("made.txt", 10)]
    assert body["output"]["stdout"]["total_bytes"] == 6
    for name in ("request_hash", "image_digest", "profile_hash", "result_hash"):
        assert body[name].startswith("sha256:"), name
    isolation = body["isolation"]
    assert isolation["runtime"] == "runc"
    assert set(isolation["capabilities"].values()) == {"0" * 16}
    assert isolation["no_new_privileges"] is True
    assert isolation["seccomp_mode"] == 2
    assert isolation["uid"] == isolation["gid"]
    assert isolation["uid"] in Settings().sandbox_uid_range
    assert {"cgroup", "ipc", "mnt", "net", "pid", "uts"} <= set(isolation["own_namespaces"])
    assert isolation["interfaces"] == ["lo"]
    assert isolation["read_only_root"] is True
    assert isolation["memory_bytes"] == body["limits"]["memory_mb"] * 2**20
    assert isolation["swap_bytes"] == 0
    assert isolation["cpus"] == body["limits"]["cpu"]
    assert body["times"]["created_at"] < body["times"]["started_at"] < body["times"]["ended_at"]


def test_receipts_name_crun_where_it_starts_sandboxes(image: None) -> None:
    """An execution's sandbox is the pool's, and the other one lives."""
    with deployment(oci_runtime="crun", pool=1, pool_max=2) as own:
        client = own.client("by-crun")
        keys = tuple(PublicKey(id_, pem) for id_, pem in client.signing_keys().items())
        ran = client.run(code=CODE, language="python")
        assert ran.state == "succeeded"
        told = [verify(client.receipt(ran.id), KIND, keys)]
        with client.sandboxes.create(size="nano") as sandbox:
            assert sandbox.run("echo here").ok
        told.append(verify(client.sandboxes.receipt(sandbox.id), SANDBOX_KIND, keys))
    assert [each["isolation"]["runtime"] for each in told] == ["crun", "crun"]


def test_its_audit_head_is_in_the_chain(client: Client, receipt: str) -> None:
    """The record of that number has that hash, and is about this execution's end."""
    body = json.loads(receipt)["body"]
    records = client.audit(resource_id=body["execution"], limit=500)["items"]
    (found,) = [each for each in records if each["seq"] == body["audit_head"]["seq"]]
    assert found["hash"] == body["audit_head"]["hash"]
    assert found["record"]["action"] == "execution:end"


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every leaf."""
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    inner = [leaf for name, each in children for leaf in leaves(each, (*path, name))]
    yield from inner or [path]


def test_every_changed_field_is_found(receipt: str, keys: tuple[PublicKey, ...]) -> None:
    """Each leaf of a real receipt is changed in turn; one is removed, and one added."""
    whole = json.loads(receipt)
    paths = [path for path in leaves(whole) if path[0] in {"body", "type"}]
    assert len(paths) > 60
    for path in paths:
        changed = copy.deepcopy(whole)
        holder = changed
        for name in path[:-1]:
            holder = holder[name]
        holder[path[-1]] = "changed" if holder[path[-1]] != "changed" else "other"
        with pytest.raises(BadSignature):
            verify(json.dumps(changed), KIND, keys)
        del holder[path[-1]]
        with pytest.raises(BadSignature):
            verify(json.dumps(changed), KIND, keys)


def test_it_is_verified_offline_with_the_public_key_alone(
    receipt: str, keys: tuple[PublicKey, ...], tmp_path: Path
) -> None:
    """The command line needs no deployment for that; a changed receipt ends with an error."""
    key, good, bad = tmp_path / "key.pem", tmp_path / "good.json", tmp_path / "bad.json"
    key.write_text(keys[0].pem)
    good.write_text(receipt)
    bad.write_text(receipt.replace('"exit_code":0', '"exit_code":1'))

    def verified(file: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "runner", "receipt", "verify", str(file), "--key", str(key)],
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert verified(good).returncode == 0
    refused = verified(bad)
    assert refused.returncode == 1
    assert "something was changed" in refused.stderr


def test_each_end_by_a_worker_has_one(client: Client, keys: tuple[PublicKey, ...]) -> None:
    """A program that fails, one that cannot start, and one that runs out of time."""
    for submission, state in (
        ({"command": ["false"]}, "failed"),
        ({"command": ["no-such-program"]}, "failed"),
        ({"command": ["sleep", "9"], "limits": {"timeout_s": 0.3}}, "timed_out"),
    ):
        ran = client.run(**submission)
        body = verify(client.receipt(ran.id), KIND, keys)
        assert (body["execution"], body["state"]) == (ran.id, state)
        assert body["isolation"]["seccomp_mode"] == 2


def test_there_is_none_before_the_end_and_none_of_anothers(
    shared: Deployment, client: Client, receipt: str
) -> None:
    """An unknown execution and another tenant's get the same answer."""
    running = client.submit(command=["sleep", "30"])
    with pytest.raises(NotFound, match="no receipt"):
        client.receipt(running.id)
    client.cancel(running.id)
    stranger = shared.key("a-stranger")
    theirs, unknown = (
        httpx.get(
            f"{shared.url}/v1/executions/{id_}/receipt",
            headers={"Authorization": f"Bearer {stranger}"},
        )
        for id_ in (
            json.loads(receipt)["body"]["execution"],
            "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2",
        )
    )
    assert theirs.status_code == unknown.status_code == 404
    assert theirs.json()["detail"] == unknown.json()["detail"]
