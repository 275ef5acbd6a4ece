"""Redis is hostile: what it holds runs nothing but a look at the queue."""

import json
import pickle
import zlib
from typing import Any

import pytest
import redis

from tests.deployment import Deployment, eventually

NOW = "2026-01-01T00:00:00.000000Z"


def forge(connection: "redis.Redis", id_: str, **fields: Any) -> None:
    """Put a job into the queue as somebody with write access to Redis would."""
    job: dict[Any, Any] = {"created_at": NOW, "origin": "executions", "status": "queued", **fields}
    connection.hset(f"rq:job:{id_}", mapping=job)
    connection.lpush("rq:queue:executions", id_)


def call(name: str, *args: Any) -> bytes:
    """Return a payload that calls a function."""
    return json.dumps([name, None, list(args), {}]).encode()


RING = call("runner.queue.job.ring", *["0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"] * 2)

FORGERIES: dict[str, tuple[dict[str, Any], str]] = {
    "os.system": ({"data": call("os.system", "touch {marker}")}, "os.system"),
    "os.system, compressed": (
        {"data": zlib.compress(call("os.system", "touch {marker}"))},
        "os.system",
    ),
    "a pickle": ({"data": pickle.dumps(("os.system", None, ("true",), {}))}, "not JSON"),
    "a decompression bomb": ({"data": zlib.compress(b"[" + b" " * 2**20)}, "oversized payload"),
    "an oversized field": ({"data": RING, "description": "x" * 100_000}, "oversized job"),
    "a callback": ({"data": RING, "success_callback_name": "os.system"}, "success_callback_name"),
    "a webhook": (
        {"data": RING, "webhooks": '[{"url": "http://127.0.0.1:1/", "job_status": "finished"}]'},
        "webhooks",
    ),
    "extra arguments": ({"data": call("runner.queue.job.ring", "a", "b", "c")}, "not a ring"),
    "no ids": ({"data": call("runner.queue.job.ring", "../x", "{}")}, "no ids"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_job_is_refused_and_audited(
    name: str, shared: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing it names runs, it is gone from Redis, the platform's log tells, work goes on."""
    fields, why = FORGERIES[name]
    marker = tmp_path_factory.mktemp("forged") / "ran"
    data = fields["data"].replace(b"{marker}", str(marker).encode())
    id_ = f"forged-{abs(hash(name))}"
    with redis.Redis.from_url(shared.stack.services.redis_url) as connection:
        forge(connection, id_, **{**fields, "data": data})
        record = eventually(lambda: refusal(shared, id_), within_s=15)
        assert why in record["metadata"]["why"]
        assert record["outcome"] == "denied"
        assert not connection.exists(f"rq:job:{id_}")
        assert connection.lpos("rq:queue:executions:intermediate", id_) is None
    assert not marker.exists()
    assert shared.client("after-forgery").run(command=["true"]).state == "succeeded"


def refusal(shared: Deployment, id_: str) -> dict[str, Any] | None:
    """Return the platform's audit record of a refused job."""
    rows = shared.sql(
        "SELECT body FROM audit_events WHERE action = 'queue_job:run' AND resource_id = %s", id_
    )
    return json.loads(rows[0]["body"]) if rows else None


def test_a_ring_for_nothing_does_nothing(shared: Deployment) -> None:
    """Repeated and invented rings find nothing to claim."""
    with redis.Redis.from_url(shared.stack.services.redis_url) as connection:
        for number in range(20):
            forge(connection, f"idle-{number}", data=RING)
        eventually(lambda: connection.llen("rq:queue:executions") == 0)
    assert shared.client("after-rings").run(command=["true"]).state == "succeeded"


def test_what_redis_holds_names_nothing_but_ids(own: Deployment) -> None:
    """Not the program, not its input, not the key: ids only."""
    own.portal.call(own.worker.stop)
    client = own.client("canary")
    client.submit(code="print('CANARY-7f3a')", language="python", env={"X": "CANARY-7f3a"})
    with redis.Redis.from_url(own.stack.services.redis_url) as connection:
        held = b"".join(connection.dump(key) or b"" for key in connection.scan_iter())
        job = next(connection.scan_iter(match="rq:job:*"))
        payload = json.loads(zlib.decompress(connection.hget(job, "data")))
    assert b"CANARY" not in held
    assert payload[0] == "runner.queue.job.ring"
    assert len(payload[2]) == 2
    own.restart_worker()
    for execution in client.list()[0]:
        client.wait(execution)
