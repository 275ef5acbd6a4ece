"""Several nodes of one deployment: each takes its share, is drained, and may fail."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from runner.door.identity import DoorRole, certify, make_authority
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment, eventually
from tests.support.nodes import Node, further_node

MOST_TRIED = 12
NODES = "/operator/v1/nodes"
LEASE_S = 4.0


@pytest.fixture(scope="module")
def made(image: None) -> Iterator[Deployment]:
    """Return a deployment whose nodes are missed soon."""
    with deployments.deployment(
        lease_s=LEASE_S, reconcile_s=0.5, slots=4, audit_checkpoint_s=1.0, **NO_POOL
    ) as running:
        yield running


@pytest.fixture(scope="module")
def second(made: Deployment) -> Iterator[Node]:
    """Return its second node."""
    with further_node(made, "second") as node:
        yield node


@pytest.fixture(scope="module")
def operator(made: Deployment) -> httpx.Client:
    return made.operator()


@pytest.fixture
def first(made: Deployment) -> str:
    """Return the name of the first node."""
    return made.stack.settings.node_id


def nodes(operator: httpx.Client) -> dict[str, dict[str, Any]]:
    return {each["node"]: each for each in operator.get(NODES).json()["items"]}


def new_sandbox(client: httpx.Client, **asked: Any) -> str:
    answer = client.post("/v1/sandboxes", json={"size": "nano", **asked})
    assert answer.status_code == 201, answer.text
    id_: str = answer.json()["id"]
    return id_


def sandbox_on(made: Deployment, client: httpx.Client, node: str, **asked: Any) -> str:
    """Return a new sandbox of this node. How busy each node is decides which one takes the next."""
    for _ in range(MOST_TRIED):
        if node_of(made, found := new_sandbox(client, **asked)) == node:
            return found
    pytest.fail(f"{node} took none of {MOST_TRIED} sandboxes")


def taken(client: httpx.Client) -> str | None:
    """Return a new sandbox, or None if no node takes one."""
    answer = client.post("/v1/sandboxes", json={"size": "nano"})
    assert answer.status_code in {201, 503}, answer.text
    found: str | None = answer.json().get("id")
    return found


def node_of(made: Deployment, sandbox: str) -> str:
    (row,) = made.sql("SELECT node FROM sandboxes WHERE sandbox_id = %s", sandbox)
    found: str = row["node"]
    return found


def said(client: httpx.Client, sandbox: str, text: str) -> str:
    """Have a sandbox say something."""
    asked = {"command": ["echo", text], "wait_s": 30}
    answer = client.post(f"/v1/sandboxes/{sandbox}/processes", json=asked)
    assert answer.is_success, answer.text
    return str(answer.json())


def two_nodes(operator: httpx.Client, first: str, second: Node) -> None:
    """Wait until both are ready."""
    wanted = {first: "ready", second.name: "ready"}
    eventually(lambda: {name: each["state"] for name, each in nodes(operator).items()} == wanted)


def command(made: Deployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the operator in a narrow terminal."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RUNNER_")},
        "RUNNER_STATE_DIR": str(made.stack.settings.state_dir),
        "RUNNER_DATABASE_OPERATOR_URL": made.stack.services.operator_url,
        "COLUMNS": "80",
    }
    return subprocess.run(
        [sys.executable, "-m", "runner", "nodes", *arguments],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_each_node_tells_of_itself(
    made: Deployment, operator: httpx.Client, first: str, second: Node
) -> None:
    two_nodes(operator, first, second)
    mine = nodes(operator)[second.name]
    assert mine["door"] == f"unix:{second.settings.door_dir}"
    assert (mine["slots"], mine["sandboxes"]) == (4, second.settings.sandboxes)
    assert mine["isolations"] == list(second.settings.isolation)
    assert 0 < mine["free_mb"] <= mine["memory_mb"]
    listed = command(made, "list")
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == sorted(
        [[first, "ready"], [second.name, "ready"]]
    )
    assert json.loads(command(made, "list", "--json").stdout)[0]["node"] in {first, second.name}
    assert second.name in command(made, "show", "second").stdout
    unknown = command(made, "show", "third")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1), unknown.stderr
    joined = made.sql("SELECT body FROM audit_events WHERE action = 'node:join'")
    assert {json.loads(each["body"])["resource_id"] for each in joined} == {first, second.name}


def test_sandboxes_live_on_both_and_are_reached_at_the_right_door(
    made: Deployment, operator: httpx.Client, first: str, second: Node
) -> None:
    """Each new one goes to the emptier node; commands, files, pauses and ends reach it there."""
    two_nodes(operator, first, second)
    client = made.http("spread")
    made_here = [new_sandbox(client) for _ in range(4)]
    assert {node_of(made, each) for each in made_here} == {first, second.name}
    for each in made_here:
        assert f"I am {each}" in said(client, each, f"I am {each}")
        assert client.post(f"/v1/sandboxes/{each}/pause").json()["state"] == "paused"
        assert client.post(f"/v1/sandboxes/{each}/resume").json()["state"] == "running"
        assert client.delete(f"/v1/sandboxes/{each}").is_success
    eventually(lambda: second.containers() == [])


def test_executions_run_on_both(
    made: Deployment, operator: httpx.Client, first: str, second: Node
) -> None:
    two_nodes(operator, first, second)
    client = made.http("both")
    ids = [
        client.post("/v1/executions", json={"command": ["sleep", "1"], "size": "nano"}).json()["id"]
        for _ in range(12)
    ]
    ended(made, ids)
    assert set(states(made, ids)) == {"succeeded"}
    assert set(ran_on(made, ids)) == {first, second.name}


def ended(made: Deployment, ids: list[str]) -> None:
    eventually(lambda: not set(states(made, ids)) & {"queued", "starting", "running"})


def states(made: Deployment, ids: list[str]) -> Counter[str]:
    rows = made.sql("SELECT state FROM executions WHERE execution_id = ANY (%s::uuid[])", ids)
    return Counter(row["state"] for row in rows)


def ran_on(made: Deployment, ids: list[str]) -> Counter[str]:
    rows = made.sql("SELECT node FROM executions WHERE execution_id = ANY (%s::uuid[])", ids)
    return Counter(row["node"] for row in rows)


def log_of(made: Deployment) -> str:
    """Return what the first node has written."""
    return (made.stack.settings.state_dir / "log" / "worker.log").read_text("utf-8", "replace")


def begun_on(made: Deployment, ids: list[str], node: Node) -> list[dict[str, Any]]:
    """Return those whose program runs on a node."""
    return made.sql(
        "SELECT 1 FROM executions WHERE execution_id = ANY (%s::uuid[]) AND node = %s "
        "AND state = 'running'",
        ids,
        node.name,
    )


def test_a_drained_node_takes_nothing_new_and_becomes_empty(
    made: Deployment, operator: httpx.Client, first: str, second: Node
) -> None:
    """Under load: what runs ends, what its owner permits is kept, and the rest is told."""
    two_nodes(operator, first, second)
    client = made.http("drained")
    stays = sandbox_on(made, client, second.name)
    moved = sandbox_on(made, client, second.name, on_shortage="snapshot")
    assert client.post(f"/v1/sandboxes/{moved}/pause").is_success
    before = submit(client, 8)
    eventually(lambda: second.name in ran_on(made, before))
    assert operator.post(f"{NODES}/{second.name}/drain").status_code == 200
    eventually(lambda: "draining" in second.log())
    after = submit(client, 8)
    assert {node_of(made, new_sandbox(client)) for _ in range(3)} == {first}
    ended(made, before + after)
    assert set(states(made, before + after)) == {"succeeded"}
    assert set(ran_on(made, after)) == {first}
    gone = eventually(lambda: gone_as(client, moved))
    assert (gone["reason"], "drained" in gone["detail"]) == ("evicted", True)
    assert client.get(f"/v1/snapshots/{gone['kept_as']}").is_success
    held = operator.get(f"{NODES}/{second.name}").json()
    assert held["node"]["state"] == "draining"
    assert [(each["kind"], each["id"]) for each in held["held"]] == [("sandbox", stays)]
    assert stays in command(made, "show", second.name).stdout
    assert f"still {stays}" in said(client, stays, f"still {stays}")
    refused = operator.delete(f"{NODES}/{second.name}")
    assert (refused.status_code, "still holds" in refused.text) == (409, True)
    assert command(made, "resume", second.name).stdout == f"{second.name}: ready\n"
    two_nodes(operator, first, second)
    made.end_sandboxes()


def submit(client: httpx.Client, count: int, **asked: Any) -> list[str]:
    body = {"command": ["sleep", "1"], "size": "nano", **asked}
    return [client.post("/v1/executions", json=body).json()["id"] for _ in range(count)]


def gone_as(client: httpx.Client, sandbox: str) -> dict[str, Any] | None:
    found: dict[str, Any] = client.get(f"/v1/sandboxes/{sandbox}").json()
    return found if found["state"] == "ended" else None


def test_a_removed_node_does_not_come_back_by_itself(
    made: Deployment, operator: httpx.Client, first: str, second: Node
) -> None:
    """It is refused while it works, refuses to start once it is removed, and may be taken back."""
    two_nodes(operator, first, second)
    assert operator.delete(f"{NODES}/{second.name}").status_code == 409
    second.stop()
    assert nodes(operator)[second.name]["state"] == "away"
    assert operator.delete(f"{NODES}/{second.name}").status_code == 204
    assert set(nodes(operator)) == {first}
    second.child.start()
    eventually(lambda: not second.child.running())
    assert f"runner nodes resume {second.name}" in second.child.last_words()
    assert operator.post(f"{NODES}/{second.name}/resume").status_code == 200
    second.start()
    two_nodes(operator, first, second)
    assert operator.get(f"{NODES}/nobody").status_code == 404
    actions = [json.loads(row["body"]) for row in made.sql(
        "SELECT body FROM audit_events WHERE action LIKE 'node:%%' ORDER BY seq"
    )]  # fmt: skip
    told = [each["action"] for each in actions if each["resource_id"] == second.name]
    assert told[-2:] == ["node:remove", "node:resume"]
    assert actions[-1]["actor"].startswith("operator:")


def test_a_killed_node_loses_only_what_ran_on_it(
    made: Deployment, operator: httpx.Client, first: str, second: Node
) -> None:
    """Under load: who asked for another try gets it, once; nobody else runs twice."""
    two_nodes(operator, first, second)
    client = made.http("killed")
    drained = log_of(made).count("draining")
    here = sandbox_on(made, client, first)
    there = sandbox_on(made, client, second.name)
    operator.post(f"{NODES}/{first}/drain")
    eventually(lambda: log_of(made).count("draining") > drained)
    again = submit(client, 2, command=["sleep", "8"], on_worker_loss="retry")
    never = submit(client, 2, command=["sleep", "8"], on_worker_loss="fail")
    eventually(lambda: len(begun_on(made, again + never, second)) == 4)
    operator.post(f"{NODES}/{first}/resume")
    two_nodes(operator, first, second)
    again += submit(client, 4, on_worker_loss="retry")
    second.kill()
    # As soon as the first one has learned that it may, it takes what the second one cannot.
    assert node_of(made, eventually(lambda: taken(client))) == first
    ended(made, again + never)
    assert set(states(made, again)) == {"succeeded"}
    once_each(made, again + never)
    begun_once(made, never)
    lost = made.sql(
        "SELECT result->>'reason' AS reason FROM executions "
        "WHERE execution_id = ANY (%s::uuid[]) AND state <> 'succeeded'", never
    )  # fmt: skip
    assert lost
    assert {row["reason"] for row in lost} == {"worker_lost"}
    assert f"alive {here}" in said(client, here, f"alive {here}")
    gone = eventually(lambda: gone_as(client, there))
    assert gone["reason"] == "lost"
    second.start()
    two_nodes(operator, first, second)
    eventually(lambda: second.containers() == [])
    made.end_sandboxes()


def once_each(made: Deployment, ids: list[str]) -> None:
    """Require that each has one end on record, and one receipt."""
    rows = made.sql("SELECT body FROM audit_events WHERE action = 'execution:end'")
    counted = Counter(json.loads(row["body"])["resource_id"] for row in rows)
    assert {counted[each] for each in ids} == {1}
    receipts = made.sql(
        "SELECT count(*) AS n FROM receipts WHERE execution_id = ANY (%s::uuid[])", ids
    )
    assert receipts == [{"n": len(ids)}]


def begun_once(made: Deployment, ids: list[str]) -> None:
    """Require that no program began twice: an attempt that had begun nothing may be repeated."""
    rows = made.sql("SELECT body FROM audit_events WHERE action = 'execution:start'")
    counted = Counter(json.loads(row["body"])["resource_id"] for row in rows)
    assert max(counted[each] for each in ids) == 1


def test_a_node_that_hung_and_comes_back_repeats_nothing(
    made: Deployment, operator: httpx.Client, first: str, second: Node
) -> None:
    """Its executions were given to others meanwhile; its own results come too late."""
    two_nodes(operator, first, second)
    client = made.http("hung")
    ids = submit(client, 8, command=["sleep", "5"], on_worker_loss="retry")
    eventually(lambda: begun_on(made, ids, second))
    second.freeze()
    try:
        eventually(lambda: nodes(operator)[second.name]["state"] == "away")
        ended(made, ids)
    finally:
        second.thaw()
    assert set(states(made, ids)) == {"succeeded"}
    two_nodes(operator, first, second)
    eventually(lambda: second.containers() == [])
    once_each(made, ids)
    assert set(states(made, ids)) == {"succeeded"}


def test_a_node_that_is_added_takes_its_share_at_once(
    made: Deployment, operator: httpx.Client, first: str, second: Node
) -> None:
    two_nodes(operator, first, second)
    made.end_sandboxes()
    client = made.http("added")
    with further_node(made, "third") as third:
        eventually(lambda: nodes(operator)[third.name]["state"] == "ready")
        time.sleep(1.1)  # An API remembers the nodes for a second.
        assert third.name in {node_of(made, new_sandbox(client)) for _ in range(6)}
        ids = submit(client, 18)
        ended(made, ids)
        assert set(ran_on(made, ids)) == {first, second.name, third.name}
        made.end_sandboxes()
    assert nodes(operator)[third.name]["state"] == "away"
    assert operator.delete(f"{NODES}/{third.name}").status_code == 204


def test_a_node_of_another_host_is_reached_by_tls(
    made: Deployment, operator: httpx.Client, first: str, second: Node, tmp_path: Path
) -> None:
    """Its sandboxes are used as all others, once the API has a certificate, too."""
    two_nodes(operator, first, second)
    client = made.http("far")
    make_authority(tmp_path / "doors")
    held = made.stack.settings.door_certificates
    with further_node(made, "far", authority=tmp_path / "doors") as far:
        certify(tmp_path / "doors", held, DoorRole.API, "api-1", timedelta(days=1))
        place = far.settings.door_address
        eventually(lambda: nodes(operator)[far.name]["state"] == "ready")
        assert nodes(operator)[far.name]["door"] == f"tls://{place}/{far.name}"
        time.sleep(1.1)  # An API remembers the nodes for a second.
        there = sandbox_on(made, client, far.name)
        assert f"far {there}" in said(client, there, f"far {there}")
        content = bytes(range(256)) * 4096
        path = f"/v1/sandboxes/{there}/files/content"
        assert client.put(path, params={"path": "a"}, content=content).is_success
        assert client.get(path, params={"path": "a"}).content == content
        assert client.post(f"/v1/sandboxes/{there}/pause").json()["state"] == "paused"
        assert client.post(f"/v1/sandboxes/{there}/resume").json()["state"] == "running"
        assert client.delete(f"/v1/sandboxes/{there}").is_success
        made.end_sandboxes()
    # It may have ended before it has said that it holds nothing more.
    assert eventually(lambda: operator.delete(f"{NODES}/{far.name}").status_code == 204)
