"""Many executions of several tenants: each ends once, apart from the others, and in turn."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from agent_runner import Client
from runner.words.principal import Role
from runner.words.states import ENDED
from tests.support.deployment import Deployment, eventually
from tests.support.faults import kill_worker


@pytest.mark.parametrize("count", [60, pytest.param(200, marks=pytest.mark.matrix)])
def test_many_at_once_by_four_tenants_all_end_once_and_apart(own: Deployment, count: int) -> None:
    """Each ends exactly once, none sees another's data, and nothing is left."""
    clients = {name: own.client(name, max_concurrency=4) for name in ("t1", "t2", "t3", "t4")}
    keys = {name: own.key(name) for name in clients}

    def submit(number: int) -> tuple[str, str, str]:
        name = f"t{number % 4 + 1}"
        with Client(own.url, keys[name]) as client:
            word = f"{name}-{number}"
            return name, client.submit(command=["echo", word], size="nano").id, word

    with ThreadPoolExecutor(16) as pool:
        submitted = list(pool.map(submit, range(count)))
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
    assert sorted(row["n"] for row in ends) == [1] * count
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


def test_a_tenants_concurrency_cap_holds(shared: Deployment) -> None:
    """A tenant with a cap of two gets two of four slots."""
    client = shared.client("at-once-capped", max_concurrency=2)
    submitted = [client.submit(command=["sleep", "1"], size="nano") for _ in range(4)]
    most = 0
    while not all(client.get(each.id).ended for each in submitted):
        active = shared.sql(
            "SELECT count(*) AS n FROM executions JOIN tenants USING (tenant_id) "
            "WHERE name = 'at-once-capped' AND state IN ('starting', 'running')"
        )
        most = max(most, active[0]["n"])
    assert most == 2


def test_roles_bind_on_the_running_api(shared: Deployment) -> None:
    """A viewer can read but not run; the refusal is audited."""
    owner = shared.client("at-once-roles")
    ended = owner.run(command=["true"])
    viewer = shared.client("at-once-roles", Role.VIEWER)
    assert viewer.get(ended.id).state == "succeeded"
    response = httpx.post(
        f"{shared.url}/v1/executions",
        json={"command": ["true"]},
        headers={"Authorization": f"Bearer {shared.key('at-once-roles', Role.VIEWER)}"},
    )
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    denied = owner.audit(action="access:denied")["items"]
    assert denied[0]["record"]["metadata"]["permission"] == "execution:create"
