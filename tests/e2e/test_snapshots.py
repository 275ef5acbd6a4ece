"""Snapshots, sandboxes made from them, and forks, through the real API, node and supervisor."""

import os
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runner import ApiError, Client, Conflict, Invalid, NotFound, Sandbox
from tests.support.deployment import PATIENCE_S, Deployment, eventually

MIB = 2**20


@pytest.fixture(scope="module")
def api(shared: Deployment) -> Client:
    """Return a client of a tenant of this module's own."""
    return shared.client("snapshots")


@pytest.fixture(scope="module")
def source(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox with files, in a size that is nobody's default."""
    with api.sandboxes.create(size="small", limits={"disk_mb": 64}, env={"WHO": "me"}) as made:
        made.run(
            "mkdir -p a/empty; ln -s b a/link; echo kept > a/b; chmod 750 a/b; echo '\\377' > x"
        )
        made.files.write("large", os.urandom(4 * MIB))
        yield made


SUM = "find . -type f | sort | xargs sha256sum; find . | sort | xargs stat -c '%A %N'"


def test_a_snapshot_outlives_its_sandbox(api: Client) -> None:
    """A sandbox made from it has its files, its image and its limits; its id is its own."""
    with api.sandboxes.create(size="small", limits={"disk_mb": 64}) as first:
        first.run("mkdir -p a/empty; ln -s b a/link; echo kept > a/b; chmod 750 a/b")
        first.files.write("large", os.urandom(4 * MIB))
        before = first.run(SUM).stdout.raw
        kept = first.snapshot("installed", metadata={"step": "2"})
    assert (kept.name, kept.metadata, kept.sandbox) == ("installed", {"step": "2"}, first.id)
    assert kept.size_bytes > 4 * MIB
    assert kept == api.snapshots.get(kept.id)
    assert [each.id for each in api.snapshots.list()[0]] == [kept.id]
    with api.sandboxes.create(snapshot=kept.id) as again:
        assert again.run(SUM).stdout.raw == before
        assert again.info.size == "small"
        assert again.info.limits["disk_mb"] == 64
    with api.sandboxes.create(snapshot=kept.id, size="nano") as smaller:
        assert smaller.info.size == "nano"
        assert smaller.info.limits["disk_mb"] != 64
        assert smaller.run("cat a/b").stdout.text == "kept\n"
    api.snapshots.delete(kept.id)
    with pytest.raises(NotFound):
        api.snapshots.get(kept.id)
    with pytest.raises(Invalid, match="no such snapshot"):
        api.sandboxes.create(snapshot=kept.id)


def test_a_snapshot_and_a_fork_are_repeated_by_their_keys(source: Sandbox, api: Client) -> None:
    """The same again, even of a source that has ended; each sandbox has keys of its own."""
    kept = source.snapshot("keyed", idempotency_key="k", expires_s=600)
    assert kept.expires_at is not None
    assert source.snapshot("keyed", idempotency_key="k", expires_s=600) == kept
    with pytest.raises(Conflict, match="another request"):
        source.snapshot("another name", idempotency_key="k")
    with api.sandboxes.create(size="nano") as other:
        with pytest.raises(Conflict, match="another request"):
            other.snapshot("keyed", idempotency_key="k", expires_s=600)
        (copy,) = other.fork(idempotency_key="f", timeout_s=120)
        assert [each.id for each in other.fork(idempotency_key="f", timeout_s=120)] == [copy.id]
        with pytest.raises(Conflict, match="another request"):
            other.fork(2, idempotency_key="f", timeout_s=120)
    assert [each.id for each in other.fork(idempotency_key="f", timeout_s=120)] == [copy.id]
    copy.kill()
    api.snapshots.delete(kept.id)
    (figure,) = (q for q in api.usage()["quotas"] if q["name"] == "snapshot_bytes")
    assert figure["limit"] > figure["used"] >= 0


def test_forks_begin_with_the_files_and_go_their_own_way(source: Sandbox) -> None:
    before = source.run(SUM).stdout.raw
    source.start("sleep 600", tag="alone")
    copies = source.fork(2, timeout_s=60)
    try:
        for each in copies:
            assert each.run(SUM).stdout.raw == before
            assert each.run("echo $WHO").stdout.text == "me\n"
            assert not any(process.tag == "alone" for process in each.processes())
            assert each.info.limits == source.info.limits
        copies[0].run("echo changed > a/b")
        assert copies[1].run("cat a/b").stdout.text == "kept\n"
        assert source.run("cat a/b").stdout.text == "kept\n"
    finally:
        for each in copies:
            each.kill()


def living(api: Client) -> int:
    return len(api.sandboxes.list(state=["starting", "running", "stopping"])[0])


def test_a_fork_that_fails_leaves_no_copy(shared: Deployment) -> None:
    """The tenant may have two sandboxes: there is room for one of the copies, and none stays."""
    api = shared.client("snapshots-few")
    shared.sql(
        "UPDATE tenants SET quotas = quotas || %s::jsonb WHERE name = 'snapshots-few'",
        '{"sandboxes": 2}',
    )
    with api.sandboxes.create(size="nano") as made:
        with pytest.raises(ApiError) as refused:
            made.fork(2)
        assert (refused.value.quota or {})["name"] == "sandboxes"
        eventually(lambda: living(api) == 1)


@pytest.mark.parametrize("how", ["changed", "cut", "moved", "gone"])
def test_nothing_is_made_from_a_damaged_snapshot(
    api: Client, shared: Deployment, source: Sandbox, how: str
) -> None:
    """Whatever happened to the object: the answer says so, and no sandbox stays."""
    kept, other = source.snapshot(), source.snapshot()
    objects = shared.stack.settings.objects_dir
    mine, its = (object_of(shared, objects, each.id) for each in (kept, other))
    sealed = mine.read_bytes()
    # Four bytes alone would be found in so many random ones once in a thousand times.
    assert b"kept\n" not in sealed
    match how:
        case "changed":
            mine.write_bytes(
                sealed[: 3 * MIB] + bytes([sealed[3 * MIB] ^ 1]) + sealed[3 * MIB + 1 :]
            )
        case "cut":
            mine.write_bytes(sealed[: 16 + 2 * (65536 + 16)])
        case "moved":
            mine.write_bytes(its.read_bytes())
        case "gone":
            mine.unlink()
    before = living(api)
    with pytest.raises(Conflict, match="is damaged"):
        api.sandboxes.create(snapshot=kept.id)
    eventually(lambda: living(api) == before)
    assert restored(shared, kept.id) == ["success", "failure"]
    with api.sandboxes.create(snapshot=other.id) as whole:
        assert restored(shared, other.id) == ["success"]
        assert whole.run("cat a/b").stdout.text == "kept\n"
    for each in (kept, other):
        api.snapshots.delete(each.id)


def restored(deployment: Deployment, snapshot_id: str) -> list[str]:
    """Return how each use of a snapshot is on record: first that it was opened, then a failure."""
    asked = {"action": "snapshot:restore", "resource_id": snapshot_id}
    records = deployment.http("snapshots").get("/v1/audit", params=asked).json()["items"]
    records.sort(key=lambda each: each["seq"])
    return [each["record"]["outcome"] for each in records]


STOPS = """
import os, signal
print("looks", flush=True)
while True:
    for each in filter(str.isdigit, os.listdir("/proc")):
        try:
            if open(f"/proc/{each}/comm").read() == "tar\\n":
                os.kill(int(each), signal.SIGSTOP)
                print("stopped", flush=True)
        except OSError:
            pass
"""


def test_a_snapshot_or_fork_that_a_program_stops_ends_with_its_client(
    api: Client, shared: Deployment
) -> None:
    """Nothing of it stays: no room of the tenant's storage, and no copy."""
    http = shared.http("snapshots")
    with api.sandboxes.create(size="small", limits={"disk_mb": 64}) as made:
        made.files.write("large", os.urandom(48 * MIB))
        made.files.write("stops.py", STOPS)
        made.files.write("told", b"")
        made.start("python3 stops.py > told")
        eventually(lambda: b"looks" in made.files.read("told"))
        before = storage(api), living(api)
        stopped(http, f"/v1/sandboxes/{made.id}/snapshots", lambda kept: f"snapshots/{kept['id']}")
        # The node gives an archive up, too, but only after this time.
        soon = PATIENCE_S * 0.75
        eventually(lambda: storage(api) <= before[0], within_s=soon)
        forks = f"/v1/sandboxes/{made.id}/fork"
        stopped(http, forks, lambda forked: f"sandboxes/{forked['items'][0]['id']}")
        eventually(lambda: living(api) <= before[1], within_s=soon)
        asked = {"action": "sandbox:fork", "resource_id": made.id}

        def failures() -> list[dict[str, Any]]:
            records = http.get("/v1/audit", params=asked).json()["items"]
            return [each for each in records if each["record"]["outcome"] == "failure"]

        (one,) = eventually(failures)
        assert one["record"]["metadata"] == {"wanted": 1, "error": "CancelledError"}


def stopped(http: httpx.Client, path: str, made: Callable[[dict[str, Any]], str]) -> None:
    """Ask until the program stops it and the client leaves; the program may be too late."""
    for _ in range(20):
        try:
            answer = http.post(path, json={}, timeout=10)
        except httpx.ReadTimeout:
            return
        assert answer.status_code == HTTPStatus.CREATED, answer.text
        http.delete(f"/v1/{made(answer.json())}").raise_for_status()
    pytest.fail("the program in the sandbox was always too late")


def object_of(deployment: Deployment, objects: Path, snapshot_id: str) -> Path:
    """Return the file of a snapshot's object."""
    (row,) = deployment.sql("SELECT object_key FROM snapshots WHERE snapshot_id = %s", snapshot_id)
    return objects / str(row["object_key"])


def test_a_snapshot_takes_room_of_the_tenants_storage(api: Client, source: Sandbox) -> None:
    """Just as much as its object is large, until it is deleted."""
    before = storage(api)
    kept = source.snapshot()
    assert 0 < storage(api) - before - kept.size_bytes < 64 * 1024
    api.snapshots.delete(kept.id)
    assert storage(api) == before


def storage(api: Client) -> int:
    quotas = api.usage()["quotas"]
    return int(next(each["used"] for each in quotas if each["name"] == "storage_bytes"))


def test_a_snapshot_is_refused_beyond_the_storage(shared: Deployment) -> None:
    """The refusal names the limit, and nothing of the snapshot stays."""
    api = shared.client("snapshots-full")
    shared.sql(
        "UPDATE tenants SET quotas = quotas || %s::jsonb WHERE name = 'snapshots-full'",
        f'{{"storage_bytes": {2 * MIB}}}',
    )
    with api.sandboxes.create(size="nano") as made:
        made.files.write("large", os.urandom(3 * MIB))
        with pytest.raises(ApiError, match="storage_bytes") as refused:
            made.snapshot()
        assert refused.value.status == 413
        assert storage(api) == 0
        made.files.remove("large")
        assert made.snapshot().size_bytes < MIB


def test_other_tenants_have_no_such_snapshot(shared: Deployment, source: Sandbox) -> None:
    kept = source.snapshot()
    other = shared.client("snapshots-other")
    with pytest.raises(NotFound):
        other.snapshots.get(kept.id)
    with pytest.raises(NotFound):
        other.snapshots.delete(kept.id)
    with pytest.raises(Invalid, match="no such snapshot"):
        other.sandboxes.create(snapshot=kept.id)
    assert other.snapshots.list()[0] == []


def test_a_sandbox_begins_with_files(api: Client) -> None:
    """The request may hold them, or name stored ones, also beside those of a snapshot."""
    api.files.put("data/in.csv", b"a,b\n")
    files = {
        "a/text": "text",
        "/workspace/raw": {"base64": "/w=="},
        "in.csv": {"key": "data/in.csv"},
    }
    with api.sandboxes.create(size="nano", files=files) as made:
        script = "cat a/text in.csv raw"
        assert made.run(script).stdout.raw == b"texta,b\n\xff"
        kept = made.snapshot()
    with api.sandboxes.create(snapshot=kept.id, files={"in.csv": "other"}) as again:
        assert again.run("cat a/text in.csv").stdout.raw == b"textother"


def test_a_sandbox_that_cannot_begin_with_its_files_does_not_begin(api: Client) -> None:
    before = living(api)
    with pytest.raises(Invalid, match="no stored file"):
        api.sandboxes.create(size="nano", files={"a": {"key": "missing"}})
    with pytest.raises(Conflict) as refused:
        api.sandboxes.create(size="nano", files={"/usr/bin/env": "a"})
    assert refused.value.reason is not None
    eventually(lambda: living(api) == before)
