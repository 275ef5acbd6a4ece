"""Workers die, stop and fail; every accepted execution still ends once and leaves nothing."""

import os
import signal
import time
from functools import partial
from typing import Any

from agent_runner import Client
from runner.base.signing import TrustedKeys, verify
from runner.store.receipts import KIND
from tests.support.deployment import Deployment, eventually
from tests.support.faults import HELD, health, kill_worker, running


def runs(client: Client, id_: str, attempt: int = 1) -> bool:
    """Return whether this attempt at an execution runs."""
    found = client.get(id_)
    return (found.state, found.attempt) == ("running", attempt)


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
