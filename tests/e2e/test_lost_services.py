"""Redis or PostgreSQL is away; what was accepted still ends once, and the same processes go on."""

import asyncio
import os
import signal
import threading
import time
from contextlib import ExitStack

import httpx
import pytest
import redis
from rq import Worker

from agent_runner import Unavailable
from runner.base.duties import _Duty
from runner.queue import connections
from runner.queue.connections import RETRY_S
from runner.queue.consumer import Consumer
from runner.store.db import PASSING
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment, eventually
from tests.support.faults import (
    HELD,
    accepted,
    health,
    kill_worker,
    running,
    settled,
    worker_here,
)

WAITING = {"blmove", "blpop", "brpop"}
"""The commands of Redis by which somebody waits for an entry of a list."""


def test_a_lost_redis_loses_no_execution(own: Deployment) -> None:
    """After FLUSHALL with 20 queued executions, all 20 still run."""
    kill_worker(own)
    client = own.client("flush")
    submitted = [client.submit(command=["true"], size="nano") for _ in range(20)]
    with redis.Redis.from_url(own.stack.services.redis_url) as connection:
        connection.flushall()
    own.restart_worker()
    for each in submitted:
        assert client.wait(client.get(each.id)).state == "succeeded"


def test_without_redis_nothing_is_accepted_and_nothing_is_stored(own: Deployment) -> None:
    """The API answers 503 until Redis is back; then the same processes continue."""
    client = own.client("no-redis")
    own.stack.services.redis.stop()
    with pytest.raises(Unavailable) as refused:
        client.submit(command=["true"])
    assert refused.value.status == 503
    assert own.sql("SELECT count(*) AS n FROM executions")[0]["n"] == 0
    ready = httpx.get(f"{own.url}/readyz")
    assert (ready.status_code, ready.json()["parts"]) == (
        503,
        {"postgres": "ok", "redis": "unavailable", "rights": "ok"},
    )
    assert int(ready.headers["Retry-After"]) > 0
    own.stack.services.redis.start()
    assert client.run(command=["true"]).state == "succeeded"


def listens(own: Deployment) -> bool:
    """Return whether the node waits at the queue, as Redis itself tells."""
    with redis.Redis.from_url(own.stack.services.redis_url) as connection:
        # Many times: between two waits of a second, it does not wait for a moment.
        for _ in range(40):
            found = sum(each["cmd"] in WAITING for each in connection.client_list())
            if found == 1:
                return True
            time.sleep(0.05)
    return False


RQS_OWN_S = Worker.max_connection_wait_time
"""The longest pause after which RQ by itself asks Redis again. Its pauses double until then."""


@pytest.mark.parametrize(
    ("longest_s", "away_s", "soon"),
    [
        pytest.param(RETRY_S, 9, True, id="our pauses"),
        pytest.param(RQS_OWN_S, 17, False, id="RQ's own", marks=pytest.mark.matrix),
    ],
)
def test_after_redis_was_away_the_node_hears_of_it_soon(
    own: Deployment, monkeypatch: pytest.MonkeyPatch, *, longest_s: float, away_s: int, soon: bool
) -> None:
    """It does not matter how long.

    The control: with RQ's own pauses, a consumer that heard nothing at 15 s asks again at 31 s.
    """
    monkeypatch.setattr(Consumer, "max_connection_wait_time", longest_s)
    client = own.client("back-again")
    with worker_here(own):
        eventually(lambda: listens(own))
        own.stack.services.redis.stop()
        time.sleep(away_s)
        own.stack.services.redis.start()
        time.sleep(4)  # longer than our pauses, and shorter than RQ's next one
        assert listens(own) is soon
        if soon:
            assert client.run(command=["true"], size="nano").state == "succeeded"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_stops_at_once_though_redis_is_gone(own: Deployment, how: signal.Signals) -> None:
    """No step of the stop waits for Redis, dead or silent, longer than a time-out."""
    client = own.client("stop-without-redis")
    eventually(lambda: accepted(client))
    server = own.stack.services.redis
    pid = server.pid
    if how is signal.SIGKILL:
        server.kill()
    else:
        os.kill(pid, how)
    time.sleep(8)
    began = time.monotonic()
    try:
        assert own.portal.call(own.worker.stop) == 0
        assert time.monotonic() - began < 6
    finally:
        if how is signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("how", "place", "name", "value"),
    [
        (signal.SIGKILL, Consumer, "max_connection_wait_time", RQS_OWN_S),
        (signal.SIGSTOP, connections, "TIMEOUT_S", RQS_OWN_S),
    ],
    ids=["dead", "silent"],
)
def test_a_worker_that_waits_longer_for_redis_stops_late(
    own: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    how: signal.Signals,
    place: object,
    name: str,
    value: float,
) -> None:
    """The control: RQ's own pauses if Redis is dead, and a long time-out if it is silent."""
    monkeypatch.setattr(place, name, value)
    server = own.stack.services.redis
    pid = server.pid
    with ExitStack() as stack:
        stack.enter_context(worker_here(own))
        eventually(lambda: listens(own))
        if how is signal.SIGKILL:
            server.kill()
        else:
            os.kill(pid, how)
        time.sleep(16)
        waking = threading.Timer(12, os.kill, (pid, signal.SIGCONT))
        if how is signal.SIGSTOP:
            waking.start()
        began = time.monotonic()
        stack.close()
        assert time.monotonic() - began > 6


def test_without_postgres_nothing_is_accepted_and_nothing_is_queued(own: Deployment) -> None:
    """The API answers 503 until PostgreSQL is back; then the same processes continue."""
    client = own.client("no-postgres")
    own.stack.services.postgres.stop()
    with pytest.raises(Unavailable) as refused:
        client.submit(command=["true"])
    assert refused.value.status == 503
    with redis.Redis.from_url(own.stack.services.redis_url) as connection:
        assert connection.llen("rq:queue:executions") == 0
    assert httpx.get(f"{own.url}/readyz").json()["parts"]["postgres"] == "unavailable"
    own.stack.services.postgres.start()
    assert client.run(command=["true"]).state == "succeeded"


def test_a_submission_whose_commit_is_not_confirmed_may_be_stored(own: Deployment) -> None:
    """The answer says so, and promises nothing; with the same key, one execution is stored."""
    http, asked = own.http("unconfirmed"), {"command": ["true"], "size": "nano"}
    key = {"Idempotency-Key": "once"}
    own.sql(
        "CREATE FUNCTION goes_away() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
    )
    own.sql(
        "CREATE CONSTRAINT TRIGGER goes_away AFTER INSERT ON executions "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION goes_away()"
    )
    answer = http.post("/v1/executions", json=asked, headers=key)
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (503, "urn:runner:problem:unconfirmed")
    assert int(answer.headers["Retry-After"]) > 0
    assert "may be stored or not" in problem["detail"]
    own.sql("DROP TRIGGER goes_away ON executions")
    again = [http.post("/v1/executions", json=asked, headers=key) for _ in range(2)]
    assert len({each.json()["id"] for each in again}) == 1
    assert own.sql("SELECT count(*) AS n FROM executions") == [{"n": 1}]


def test_a_result_survives_a_restart_of_postgres(image: None) -> None:
    """PostgreSQL crashes mid-run and is back within the lease: the result is stored once."""
    with deployments.deployment(lease_s=15.0, reconcile_s=0.5, **NO_POOL) as own:
        client = own.client("pg-restart")
        submitted = client.submit(code=HELD.format(seconds=1.5), language="python")
        eventually(lambda: client.get(submitted.id).state == "running")
        own.stack.services.postgres.kill()
        time.sleep(1)
        own.stack.services.postgres.start()
        ended = eventually(lambda: settled(client, submitted.id))
        assert (ended.state, ended.attempt) == ("succeeded", 1), ended
        assert ended.stdout.text == "begun\ndone\n"


def read_only(own: Deployment, value: str) -> None:
    """Make PostgreSQL refuse every write, like an old primary after a failover, or end that."""
    own.sql(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    own.sql("SELECT pg_reload_conf()")


def test_a_read_only_postgres_ends_no_sweep(own: Deployment) -> None:
    """It lasts longer than a lease, as in a failover. The worker says so; afterwards, all end."""
    client = own.client("read-only")
    id_ = running(client)
    assert health(own) == (0, "ok\n")
    read_only(own, "on")
    time.sleep(own.stack.settings.lease_s + 1)
    assert health(own)[0] == 1
    eventually(lambda: "reaping: " in health(own)[1])
    read_only(own, "off")
    ended = eventually(lambda: settled(client, id_))
    assert (ended.state, ended.reason) == ("system_error", "worker_lost")
    assert client.run(command=["true"]).state == "succeeded"
    eventually(lambda: health(own)[0] == 0)


@pytest.mark.matrix
def test_a_sweep_that_fails_for_good_leaves_executions_behind(
    own: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: after its first failure, a task is not repeated any more."""

    async def until_it_fails(duty: _Duty) -> None:
        while await duty._fault() is None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(duty._every_s)

    monkeypatch.setattr(_Duty, "run", until_it_fails)
    client = own.client("swept-once")
    with worker_here(own):
        id_ = running(client)
        read_only(own, "on")
        time.sleep(own.stack.settings.lease_s + 1)
        read_only(own, "off")
        assert client.run(command=["true"]).state == "succeeded"
        time.sleep(own.stack.settings.lease_s)
        assert client.get(id_).state == "running"


def test_a_read_only_postgres_is_answered_503(own: Deployment) -> None:
    """The client is told to try again, and that is right once PostgreSQL takes writes again."""
    http, asked = own.http("refused"), {"command": ["true"], "size": "nano"}

    def status() -> int:
        return http.post("/v1/executions", json=asked).status_code

    read_only(own, "on")
    eventually(lambda: status() == 503)
    refused = http.post("/v1/executions", json=asked)
    assert (refused.status_code, refused.json()["type"]) == (
        503,
        "urn:runner:problem:service-unavailable",
    ), refused.text
    assert int(refused.headers["Retry-After"]) > 0
    read_only(own, "off")
    eventually(lambda: status() != 503)
    assert http.post("/v1/executions", json=asked).is_success


REFUSALS = {
    "08006": 503, "25006": 503, "25P03": 503, "25P04": 503, "40001": 503, "40P01": 503,
    "53100": 503, "53300": 503, "55P03": 503, "57014": 503, "58030": 503,
    "25001": 500, "54000": 500, "XX000": 500,
}  # fmt: skip
"""Answers by PostgreSQL's reason; the last three do not pass by themselves."""


def test_what_passes_by_itself_is_answered_503_and_nothing_else_is(own: Deployment) -> None:
    """Each of the classes of errors is tried: a client that repeats what stays is no help."""
    assert {code[:2] for code, status in REFUSALS.items() if status == 503} == PASSING
    http, asked = own.http("passing"), {"command": ["true"], "size": "nano"}
    for code, status in REFUSALS.items():
        own.sql(
            "CREATE OR REPLACE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{code}'; END $$"
        )
        own.sql(
            "CREATE OR REPLACE TRIGGER refuses BEFORE INSERT ON executions "
            "FOR EACH ROW EXECUTE FUNCTION refuses()"
        )
        answer = http.post("/v1/executions", json=asked)
        assert answer.status_code == status, (code, answer.text)
        assert ("Retry-After" in answer.headers) is (status == 503), code
    own.sql("DROP TRIGGER refuses ON executions")
    assert http.post("/v1/executions", json=asked).is_success
