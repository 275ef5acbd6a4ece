"""Parts of the service die; every accepted execution still ends once and leaves nothing."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest
import redis

from agent_runner import Client, Unavailable
from runner.base.signing import TrustedKeys, verify
from runner.store.receipts import KIND
from runner.words.principal import Role
from runner.words.states import ENDED
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment, eventually, state_of

HELD = "import time\nprint('begun', flush=True)\ntime.sleep({seconds})\nprint('done')"


def running(client: Client, **options: Any) -> str:
    """Submit a program that takes a while; return its id once it runs."""
    submitted = client.submit(code=HELD.format(seconds=8), language="python", **options)
    eventually(lambda: state_of(client, submitted)() == "running")
    return submitted.id


def runs(client: Client, id_: str, attempt: int = 1) -> bool:
    """Return whether this attempt at an execution runs."""
    found = client.get(id_)
    return (found.state, found.attempt) == ("running", attempt)


def kill_worker(own: Deployment) -> None:
    """End the worker as a crash would."""
    own.portal.call(own.worker.stop, signal.SIGKILL)


def signed(own: Deployment, client: Client, id_: str) -> dict[str, Any]:
    """Return what an execution's receipt says, verified with the deployment's keys."""
    keys = TrustedKeys(own.stack.settings.state_dir).read()
    return verify(client.receipt(id_), KIND, keys)


def test_an_execution_whose_worker_dies_ends_and_its_container_is_removed(own: Deployment) -> None:
    """After SIGKILL, it ends soon after the next start, as `worker_lost`, recorded once."""
    client = own.client("lost")
    id_ = running(client)
    kill_worker(own)
    assert len(own.containers()) == 1
    own.restart_worker()
    ended = eventually(lambda: (found := client.get(id_)).ended and found)
    assert (ended.state, ended.reason, ended.attempt) == ("system_error", "worker_lost", 1)
    eventually(lambda: own.containers() == [])
    states = [e.data["state"] for e in client.events(id_) if e.kind == "state"]
    assert states == ["queued", "starting", "running", "system_error"]
    ends = client.audit(resource_id=id_, action="execution:end")["items"]
    assert len(ends) == 1
    receipt = signed(own, client, id_)
    assert (receipt["reason"], receipt["node"]) == ("worker_lost", None)
    assert receipt["audit_head"] == {"seq": ends[0]["seq"], "hash": ends[0]["hash"]}


def test_an_execution_that_asked_for_it_runs_again(own: Deployment) -> None:
    """With `on_worker_loss: retry`, a second attempt succeeds; the result has only its output."""
    client = own.client("retry")
    id_ = running(client, on_worker_loss="retry")
    kill_worker(own)
    own.restart_worker()
    ended = eventually(lambda: (found := client.get(id_)).ended and found)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    assert ended.stdout is not None and ended.stdout.text == "begun\ndone\n"
    assert len(client.audit(resource_id=id_, action="execution:end")["items"]) == 1


def test_an_execution_that_kills_its_workers_is_taken_out_of_circulation(own: Deployment) -> None:
    """It ends after three attempts, and is not tried again."""
    client = own.client("poison")
    submitted = client.submit(
        code=HELD.format(seconds=60), language="python", on_worker_loss="retry"
    )
    for attempt in range(1, 4):
        eventually(partial(runs, client, submitted.id, attempt))
        kill_worker(own)
        own.restart_worker()
    ended = eventually(lambda: (found := client.get(submitted.id)).ended and found)
    assert (ended.state, ended.reason) == ("system_error", "attempts_exhausted")
    assert signed(own, client, submitted.id)["attempt"] == 3


def test_a_stopped_worker_drains(own: Deployment) -> None:
    """After SIGTERM, a short execution finishes, and a long one ends as drained when time is up."""
    client = own.client("drain")
    short = client.submit(code=HELD.format(seconds=1), language="python")
    long = client.submit(code=HELD.format(seconds=60), language="python")
    for each in (short, long):
        eventually(partial(runs, client, each.id))
    assert own.portal.call(own.worker.stop) == 0
    assert client.get(short.id).state == "succeeded"
    ended = client.get(long.id)
    assert (ended.state, ended.reason) == ("system_error", "worker_drained")
    receipt = signed(own, client, long.id)
    assert receipt["reason"] == "worker_drained"
    assert receipt["isolation"]["seccomp_mode"] == 2, "what the worker knew of it is in it"
    assert own.containers() == []


def test_a_lost_redis_loses_no_execution(own: Deployment) -> None:
    """After FLUSHALL with 50 queued executions, all 50 still run."""
    kill_worker(own)
    client = own.client("flush")
    submitted = [client.submit(command=["true"], size="nano") for _ in range(50)]
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


@pytest.mark.alone
def test_after_redis_was_away_every_slot_hears_of_it_soon(own: Deployment) -> None:
    """It does not matter how long. The control: RQ's own pauses double, up to a minute.

    With these, a consumer that heard nothing at 15 s asks again at 31 s. Executions that several
    slots would run side by side then run one after another, in the slot that was busy when Redis
    went.
    """
    client = own.client("back-again")
    eventually(lambda: accepted(client))
    own.stack.services.redis.stop()
    time.sleep(16)
    own.stack.services.redis.start()
    eventually(lambda: accepted(client))
    slots = own.stack.settings.slots
    submitted = [client.submit(command=["sleep", "6"], size="nano") for _ in range(slots)]
    ran = [client.wait(each) for each in submitted]
    assert {each.state for each in ran} == {"succeeded"}
    began, ended = ([getattr(each, name) for each in ran] for name in ("started_at", "ended_at"))
    assert max(began) < min(ended), "they ran side by side"


def accepted(client: Client) -> bool:
    """Return whether an execution is accepted and has run."""
    try:
        return client.run(command=["true"], size="nano").state == "succeeded"
    except Unavailable:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_stops_at_once_though_redis_is_gone(own: Deployment, how: signal.Signals) -> None:
    """Whether Redis is dead or silent, no step of the stop waits for it longer than a time-out."""
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


def health(own: Deployment) -> tuple[int, str]:
    """Return the exit code of `runner worker --healthy`, and what it prints."""
    told = subprocess.run(
        [sys.executable, "-m", "runner", "worker", "--healthy"],
        env={**os.environ, "RUNNER_STATE_DIR": str(own.stack.settings.state_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return told.returncode, told.stdout + told.stderr


def test_a_read_only_postgres_ends_no_sweep(own: Deployment) -> None:
    """It lasts longer than a lease, as in a failover. The worker says so; afterwards, all end."""
    client = own.client("read-only")
    id_ = running(client)
    assert health(own) == (0, "ok\n")
    read_only(own, "on")
    time.sleep(own.stack.settings.lease_s + 1)
    code, told = health(own)
    assert code == 1
    assert "reaping: " in told
    read_only(own, "off")
    ended = eventually(lambda: settled(client, id_))
    assert (ended.state, ended.reason) == ("system_error", "worker_lost")
    assert client.run(command=["true"]).state == "succeeded"
    eventually(lambda: health(own)[0] == 0)


def test_a_node_that_cannot_start_sandboxes_takes_nothing_and_says_so(own: Deployment) -> None:
    """The disk seems full or read-only: all wait, none ends or loses an attempt, then all run."""
    client = own.client("broken")
    assert client.run(command=["true"]).state == "succeeded"
    eventually(lambda: own.sockets() == [])
    folder = own.stack.settings.run_dir / "sandboxes"
    away = folder.rename(folder.with_name("away"))
    folder.touch()
    submitted = [client.submit(command=["true"], size="nano") for _ in range(12)]
    eventually(lambda: "starting sandboxes: this host refused" in health(own)[1])
    eventually(lambda: {client.get(each.id).state for each in submitted} == {"queued"})
    attempts = [client.get(each.id).attempt for each in submitted]
    time.sleep(2)
    assert [client.get(each.id).attempt for each in submitted] == attempts
    assert sum(attempts) <= own.stack.settings.slots
    folder.unlink()
    away.rename(folder)
    for each in submitted:
        assert client.wait(each).state == "succeeded"
    eventually(lambda: health(own) == (0, "ok\n"))


def test_a_worker_that_is_stopped_or_dead_is_not_healthy(own: Deployment) -> None:
    """Its last report counts for no longer than ten seconds."""
    os.kill(own.worker.pid, signal.SIGSTOP)
    eventually(lambda: health(own)[0] == 1, within_s=30)
    os.kill(own.worker.pid, signal.SIGCONT)
    eventually(lambda: health(own)[0] == 0)
    own.portal.call(own.worker.stop)
    assert health(own)[0] == 1


def settled(client: Client, id_: str) -> object:
    """Return the execution if it has ended; if the API does not answer, it has not."""
    try:
        found = client.get(id_)
    except Unavailable:
        return None
    return found if found.ended else None


def test_200_at_once_by_four_tenants_all_end_once_and_apart(own: Deployment) -> None:
    """Each ends exactly once, none sees another's data, and nothing is left."""
    clients = {name: own.client(name, max_concurrency=4) for name in ("t1", "t2", "t3", "t4")}
    keys = {name: own.key(name) for name in clients}

    def submit(number: int) -> tuple[str, str, str]:
        name = f"t{number % 4 + 1}"
        with Client(own.url, keys[name]) as client:
            word = f"{name}-{number}"
            return name, client.submit(command=["echo", word], size="nano").id, word

    with ThreadPoolExecutor(16) as pool:
        submitted = list(pool.map(submit, range(200)))
    for name, id_, word in submitted:
        ended = clients[name].wait(clients[name].get(id_))
        assert ended.state == "succeeded", ended
        assert ended.stdout is not None and ended.stdout.text == f"{word}\n"
    for name, client in clients.items():
        page, cursor = client.list(limit=200)
        assert cursor is None
        assert {each.id for each in page} == {id_ for owner, id_, _ in submitted if owner == name}
        assert client.verify_audit()["valid"]
    ends = own.sql(
        "SELECT resource_id, count(*) AS n FROM audit_events "
        "WHERE action = 'execution:end' GROUP BY 1"
    )
    assert sorted(row["n"] for row in ends) == [1] * 200
    assert own.sql("SELECT count(*) AS n FROM executions WHERE attempt <> 1")[0]["n"] == 0
    eventually(lambda: own.containers() == [] and own.sockets() == [])


def test_a_noisy_tenant_is_nobody_elses_wait(own: Deployment) -> None:
    """Tenants take turns: three executions of a quiet one do not wait for forty of a noisy one."""
    noisy, quiet = own.client("noisy"), own.client("quiet")
    kill_worker(own)
    many = [noisy.submit(command=["true"], size="nano") for _ in range(40)]
    few = [quiet.submit(command=["true"], size="nano") for _ in range(3)]
    # The noisy tenant came first, and nobody has been served yet: in a tie, it goes first.
    assert [quiet.get(each.id).queue_position for each in few] == [1, 3, 5]
    assert noisy.get(many[39].id).queue_position == 39 + 3
    own.restart_worker()
    for each in few:
        quiet.wait(each)
    left = [each for each in many if noisy.get(each.id).state not in ENDED]
    assert len(left) > 20, "the quiet tenant waited for the noisy one"
    for each in many:
        noisy.wait(each)


def test_a_tenants_concurrency_cap_holds(own: Deployment) -> None:
    """Of four slots, a tenant with a cap of two gets two."""
    client = own.client("capped", max_concurrency=2)
    submitted = [client.submit(command=["sleep", "1"], size="nano") for _ in range(4)]
    most = 0
    while not all(client.get(each.id).ended for each in submitted):
        active = own.sql(
            "SELECT count(*) AS n FROM executions WHERE state IN ('starting', 'running')"
        )
        most = max(most, active[0]["n"])
    assert most == 2


def test_roles_bind_on_the_running_api(own: Deployment) -> None:
    """A viewer can read but not run; the refusal is audited."""
    owner = own.client("roles")
    ended = owner.run(command=["true"])
    viewer = own.client("roles", Role.VIEWER)
    assert viewer.get(ended.id).state == "succeeded"
    response = httpx.post(
        f"{own.url}/v1/executions",
        json={"command": ["true"]},
        headers={"Authorization": f"Bearer {own.key('roles', Role.VIEWER)}"},
    )
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    denied = owner.audit(action="access:denied")["items"]
    assert denied[0]["record"]["metadata"]["permission"] == "execution:create"
