"""Redis may be hostile: whatever it holds can only make a worker look at the queue."""

import json
import pickle
import signal
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from agent_runner import Client
from runner.node.runs.refusals import EXAMPLES, WINDOW_S
from runner.queue.producer import MAX_WAITING, UNUSED_RING_TTL_S
from tests.support.deployment import Deployment, eventually
from tests.support.rings import put

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


@pytest.fixture(scope="module")
def forged(shared: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forge jobs of every kind; return the folder of their marks once all are recorded.

    All come together, because the log takes only one record in a while.
    """
    assert len(FORGERIES) <= EXAMPLES
    folder = tmp_path_factory.mktemp("forged")
    with redis.Redis.from_url(shared.stack.services.redis_url) as connection:
        for name, (fields, _) in FORGERIES.items():
            data = fields["data"].replace(b"{marker}", str(folder / job_id(name)).encode())
            forge(connection, job_id(name), **{**fields, "data": data})
    eventually(lambda: all(refusal(shared, job_id(name)) for name in FORGERIES))
    return folder


def job_id(name: str) -> str:
    """Return the id of the forged job of this name."""
    return f"forged-{list(FORGERIES).index(name)}"


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_job_is_refused_and_audited(name: str, shared: Deployment, forged: Path) -> None:
    """Nothing that it names runs, it is gone from Redis, the log has it, and work goes on."""
    record = refusal(shared, job_id(name))
    assert record is not None
    assert FORGERIES[name][1] in record["why"]
    with redis.Redis.from_url(shared.stack.services.redis_url) as connection:
        assert not connection.exists(f"rq:job:{job_id(name)}")
    assert not (forged / job_id(name)).exists()
    assert shared.client("after-forgery").run(command=["true"]).state == "succeeded"


def refusals(shared: Deployment) -> list[dict[str, Any]]:
    """Return what the platform's audit log says about refused jobs."""
    rows = shared.sql("SELECT body FROM audit_events WHERE action = 'queue_job:run' ORDER BY seq")
    found = [json.loads(row["body"]) for row in rows]
    assert {each["outcome"] for each in found} <= {"denied"}
    return [each["metadata"] for each in found]


def refusal(shared: Deployment, id_: str) -> dict[str, Any] | None:
    """Return the record of one refused job."""
    examples = [each for record in refusals(shared) for each in record["examples"]]
    return next((each for each in examples if each["job"] == id_), None)


def forge_many(connection: "redis.Redis", number: int) -> None:
    """Put many forged jobs in front of everything else that waits."""
    with connection.pipeline(transaction=False) as pipeline:
        for _ in range(number):
            forge(pipeline, f"flood-{uuid4()}", data=call("os.system", "true"))
        pipeline.execute()


FLOOD_S = 2.0
"""How long the flood lasts at least, however fast the host is."""


@pytest.mark.alone
def test_a_flood_of_forged_jobs_is_one_record_and_delays_nobody(shared: Deployment) -> None:
    """For some seconds, 2,000 a second are counted and discarded, and a tenant's runs go on.

    The control: when every job was read and recorded by itself, there were 2,000 records.
    """
    client = shared.client("beside-a-flood")
    client.run(command=["true"], size="nano")
    alone = [took(client) for _ in range(10)]
    before = sum(each["count"] for each in refusals(shared))
    stop, sent = threading.Event(), 0
    with redis.Redis.from_url(shared.stack.services.redis_url) as connection:

        def flood() -> int:
            number = 0
            while not stop.wait(0.1):
                forge_many(connection, 200)
                number += 200
            return number

        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            flooding = pool.submit(flood)
            beside: list[float] = []
            while len(beside) < 20 or time.monotonic() < began + FLOOD_S:
                beside.append(took(client))
            stop.set()
            sent = flooding.result()
        lasted = time.monotonic() - began
        eventually(lambda: connection.llen("rq:queue:executions") == 0)
        eventually(lambda: list(connection.scan_iter("rq:job:flood-*")) == [])
    eventually(lambda: sum(each["count"] for each in refusals(shared)) > before)
    time.sleep(WINDOW_S + 1)
    found = refusals(shared)
    during = [each for each in found if each["examples"][0]["job"].startswith("flood-")]
    assert 1 <= len(during) <= lasted / WINDOW_S + 2, "one record for each window"
    assert all(len(each["examples"]) <= EXAMPLES for each in during)
    assert sent > 1000
    assert max(beside) < max(alone) + 2, (alone, beside)


def took(client: Client) -> float:
    """Return how long a run takes from its submission."""
    began = time.monotonic()
    assert client.run(command=["true"], size="nano").state == "succeeded"
    return time.monotonic() - began


def test_nothing_in_redis_grows(own: Deployment) -> None:
    """Answered rings, rings that nobody hears, and dead workers leave nothing."""
    client = own.client("growth")
    with redis.Redis.from_url(own.stack.services.redis_url) as connection:

        def keys() -> set[bytes]:
            return set(connection.scan_iter("rq:*"))

        for leftover in ("rq:workers", "rq:workers:executions"):
            connection.sadd(leftover, "rq:worker:dead")
        connection.sadd("rq:workers", "rq:worker:of-another-application")
        connection.rpush("rq:queue:executions:intermediate", "taken", "and-lost")
        # Rings whose jobs are gone, as if from an hour ago.
        connection.rpush("rq:queue:executions", *(f"gone-{n}" for n in range(50)))
        own.portal.call(own.worker.stop, signal.SIGKILL)
        own.restart_worker()
        for _ in range(5):
            client.run(command=["true"], size="nano")
        eventually(lambda: keys() == {b"rq:queues", b"rq:workers"})
        assert connection.smembers("rq:workers") == {b"rq:worker:of-another-application"}
        own.portal.call(own.worker.stop)
        for _ in range(MAX_WAITING + 50):
            put(connection)
        assert connection.llen("rq:queue:executions") == MAX_WAITING
        job = next(connection.scan_iter("rq:job:*"))
        assert 0 < connection.ttl(job) <= UNUSED_RING_TTL_S
        own.restart_worker()
        assert client.run(command=["true"], size="nano").state == "succeeded"


def test_a_ring_for_nothing_does_nothing(shared: Deployment) -> None:
    """Repeated and invented rings find nothing to claim."""
    with redis.Redis.from_url(shared.stack.services.redis_url) as connection:
        for number in range(20):
            forge(connection, f"idle-{number}", data=RING)
        eventually(lambda: connection.llen("rq:queue:executions") == 0)
    assert shared.client("after-rings").run(command=["true"]).state == "succeeded"


def test_what_redis_holds_names_nothing_but_ids(own: Deployment) -> None:
    """Redis holds neither the program, nor its input, nor the key."""
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
