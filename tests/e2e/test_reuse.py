"""Reuse and the loaded interpreter, through the API."""

import time
from collections.abc import Iterator

import httpx
import pytest

from agent_runner import Client, Execution
from tests.support import deployment as deployments
from tests.support.deployment import PATIENCE_S, Deployment, eventually

PLANT = "open('/tmp/x', 'w').write('x'); print(1)"
LOOK = "import os; print(os.listdir('/tmp'), os.listdir('/workspace'))"
FORKED = "print('/opt/supervisor' in open('/proc/self/cmdline').read())"


@pytest.fixture(scope="module")
def deployed(image: None) -> Iterator[Deployment]:
    """Return a deployment with a small pool, whose worker looks for work only once a minute."""
    with deployments.deployment(pool=2, pool_max=4, reuse_runs=5, reconcile_s=60.0) as made:
        yield made


def run(client: Client, code: str, **options: object) -> Execution:
    """Run Python code to its end."""
    return client.run(code=code, language="python", **options)


def sandbox(client: Client, execution: Execution) -> tuple[str, int]:
    """Return the execution's sandbox, and how many it had served before."""
    (start,) = client.audit(resource_id=execution.id, action="execution:start")["items"]
    metadata = start["record"]["metadata"]
    return metadata["sandbox"], metadata["sandbox_runs_before"]


def stdout(execution: Execution) -> bytes:
    """Return the program's stdout."""
    assert execution.stdout is not None
    return execution.stdout.raw


def test_a_tenant_that_may_reuses_its_sandbox(deployed: Deployment) -> None:
    """Five runs in one, each as clean as the first, then another; log and receipt say so."""
    client = deployed.client("reuse-may", reuse=True)
    ran = []
    for _ in range(3):
        ran.append(run(client, PLANT, reuse="tenant"))
        ran.append(run(client, LOOK, reuse="tenant"))
    assert [stdout(each) for each in ran] == 3 * [b"1\n", b"[] ['main.py']\n"]
    used = [sandbox(client, each) for each in ran]
    assert [before for _, before in used] == [0, 1, 2, 3, 4, 0]
    assert len({id_ for id_, _ in used[:5]}) == 1
    assert used[5][0] != used[0][0]
    with httpx.Client(base_url=deployed.url) as plain:
        headers = {"Authorization": f"Bearer {deployed.key('reuse-may')}"}
        answer = plain.get(f"/v1/executions/{ran[3].id}/receipt", headers=headers)
        shown = plain.get(f"/v1/executions/{ran[3].id}", headers=headers).json()
    assert answer.json()["body"]["sandbox_runs_before"] == 3
    assert (shown["reuse"], shown["interpreter"]) == ("tenant", "loaded")


def test_what_did_not_ask_shares_with_nobody(deployed: Deployment) -> None:
    """This holds even for a tenant that may reuse: by default, each has its own sandbox."""
    client = deployed.client("reuse-did-not-ask", reuse=True)
    ran = [run(client, "print(1)", reuse=how) for how in ("tenant", "never", "tenant", "never")]
    used = [sandbox(client, each) for each in ran]
    assert used[0][0] == used[2][0]
    assert len({id_ for id_, _ in used}) == 3
    assert [before for _, before in used] == [0, 0, 1, 0]


def test_no_sandbox_ever_serves_two_tenants(deployed: Deployment) -> None:
    """Two tenants that may reuse, in turn and at once."""
    clients = [deployed.client(f"reuse-two-{n}", reuse=True) for n in range(2)]
    made = [
        (client, client.submit(code=LOOK, language="python", reuse="tenant"))
        for _ in range(10)
        for client in clients
    ]
    assert {client.wait(execution).state for client, execution in made} == {"succeeded"}
    used = deployed.sql(
        "SELECT tenant_id, body::jsonb -> 'metadata' ->> 'sandbox' AS id FROM audit_events "
        "WHERE action = 'execution:start'"
    )
    owners: dict[str, set[str]] = {}
    for row in used:
        owners.setdefault(row["id"], set()).add(str(row["tenant_id"]))
    assert max(len(each) for each in owners.values()) == 1


def test_a_tenant_that_may_not_is_refused(deployed: Deployment) -> None:
    """The refusal names the field; the operator can permit reuse, and forbid it again."""
    plain = deployed.http("reuse-may-not")
    asked = {"code": "print(1)", "language": "python", "reuse": "tenant", "wait_s": 30}
    refused = plain.post("/v1/executions", json=asked)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "body.reuse"
    operator = deployed.operator()
    (tenant,) = [
        each
        for each in operator.get("/operator/v1/tenants", params={"limit": 200}).json()["items"]
        if each["name"] == "reuse-may-not"
    ]
    for permitted, expected in ((True, 200), (False, 422)):
        terms = {"tier": "enterprise", "reuse": permitted}
        changed = operator.put(f"/operator/v1/tenants/{tenant['id']}", json=terms)
        assert changed.json()["reuse"] is permitted, changed.text
        assert plain.post("/v1/executions", json=asked).status_code == expected


@pytest.mark.parametrize(("interpreter", "forked"), [("loaded", b"True\n"), ("fresh", b"False\n")])
def test_python_has_the_interpreter_it_asked_for(
    deployed: Deployment, interpreter: str, forked: bytes
) -> None:
    """It is the loaded one, unless the execution asks for a new one."""
    client = deployed.client("interpreter")
    assert stdout(run(client, FORKED, interpreter=interpreter)) == forked
    assert stdout(run(client, FORKED)) == b"True\n"


@pytest.mark.timeout(2 * PATIENCE_S)
def test_an_image_with_a_list_has_it_loaded_when_it_waited(deployed: Deployment) -> None:
    """The second one finds pandas imported; the first had a sandbox started for it."""
    client = deployed.client("interpreter-list")
    code = (
        "import sys; print('pandas' in sys.modules); import pandas; print(pandas.Series(1).sum())"
    )
    first = run(client, code, image="data")
    assert stdout(first).endswith(b"1\n")

    def had_waited() -> bool:
        # Without a pause, each would take the processor from the one that is being made ready.
        time.sleep(1)
        return stdout(run(client, code, image="data")) == b"True\n1\n"

    eventually(had_waited)


def test_what_waits_for_its_tenants_cap_follows_at_once(deployed: Deployment) -> None:
    """Its ring found nothing to claim, but the slot that becomes free knows about it."""
    client = deployed.client("reuse-cap", reuse=True, max_concurrency=1)
    code = "import time; time.sleep(0.2); print(1)"
    waiting = [client.submit(code=code, language="python", reuse="tenant") for _ in range(5)]
    began = time.monotonic()
    assert {client.wait(each).state for each in waiting} == {"succeeded"}
    assert time.monotonic() - began < 30


def test_a_stopped_worker_leaves_none_of_them(deployed: Deployment) -> None:
    """After SIGTERM, sandboxes that wait for their tenant go, too."""
    client = deployed.client("reuse-stop", reuse=True)
    run(client, "print(1)", reuse="tenant")
    assert deployed.portal.call(deployed.worker.stop) == 0
    assert deployed.containers() == []
    deployed.restart_worker()
    run(client, "print(2)", reuse="tenant")
