"""The operator belongs to no tenant, and makes, changes, suspends and deletes tenants."""

import subprocess
import sys
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.deployment import Deployment, bearing, eventually

TENANTS = "/operator/v1/tenants"
SLOW = {"command": ["sleep", "60"], "size": "nano"}


@pytest.fixture(scope="module")
def operator(shared: Deployment) -> httpx.Client:
    """Return an operator's connection."""
    return shared.operator()


def make(operator: httpx.Client, name: str, **terms: Any) -> tuple[str, str]:
    """Make a tenant; return its id and its first key."""
    answer = operator.post(TENANTS, json={"name": name, **terms})
    assert answer.status_code == 201, answer.text
    return answer.json()["tenant_id"], answer.json()["token"]


def test_a_tenant_is_made_with_its_terms_and_a_key(
    shared: Deployment, operator: httpx.Client
) -> None:
    """The key works at once; names are unique."""
    terms = {"tier": "pro", "max_concurrency": 3, "max_size": "small"}
    id_, token = make(operator, "o-made", **terms)
    shown = operator.get(f"{TENANTS}/{id_}").json()
    assert (shown["tier"], shown["max_concurrency"]) == ("pro", 3)
    with bearing(shared.url, token) as client:
        too_large = client.post("/v1/executions", json={"command": ["true"], "size": "large"})
    assert too_large.status_code == 422
    assert operator.post(TENANTS, json={"name": "o-made"}).status_code == 409
    listed = operator.get(TENANTS, params={"limit": 200}).json()["items"]
    assert "o-made" in {each["name"] for each in listed}


def test_neither_kind_of_key_is_one_of_the_other(
    shared: Deployment, operator: httpx.Client
) -> None:
    """An owner is no operator, and an operator is in no tenant; both learn which key they need."""
    _, token = make(operator, "o-kinds")
    with bearing(shared.url, token) as owner:
        for method, path in (("GET", TENANTS), ("POST", TENANTS), ("DELETE", f"{TENANTS}/x")):
            assert owner.request(method, path).status_code == 401
    for path in ("/v1/executions", "/v1/audit", "/v1/secrets", "/v1/keys"):
        assert operator.get(path).status_code == 401


def test_a_ceiling_of_egress_bounds_the_tenant(shared: Deployment, operator: httpx.Client) -> None:
    """It applies beside the deployment's ceiling, to requests and to policies."""
    _, token = make(operator, "o-ceiling", egress_ceiling=["*.example.com"])
    with bearing(shared.url, token) as client:
        for host, expected in (("a.example.com", 202), ("a.example.org", 422)):
            body = {"command": ["true"], "size": "nano", "egress": [host]}
            assert client.post("/v1/executions", json=body).status_code == expected
            put = client.put(f"/v1/egress-policies/{host[-3:]}", json={"rules": [host]})
            assert put.status_code == (200 if expected == 202 else 422)


def test_quotas_of_its_own_stand_in_place_of_the_tiers(
    shared: Deployment, operator: httpx.Client
) -> None:
    """They are set by route and by command; unknown names and senseless numbers are refused."""
    id_, token = make(operator, "o-quotas", tier="free", quotas={"queued": 7, "weight": 3})
    with bearing(shared.url, token) as client:

        def queued() -> int:
            figures = client.get("/v1/usage").json()["quotas"]
            return next(int(each["limit"]) for each in figures if each["name"] == "queued")

        assert queued() == 7
        assert runner(shared, "tenants", "set", "o-quotas", "--quota", "queued=9").returncode == 0
        assert queued() == 9
        assert operator.get(f"{TENANTS}/{id_}").json()["quotas"] == {"queued": 9, "weight": 3}
        assert runner(shared, "tenants", "set", "o-quotas", "--quota", "queued=").returncode == 0
        assert queued() == 200
    for wrong in ({"queued": 0}, {"queue": 1}, {"max_size": "gigantic"}, {"queued": "many"}):
        answer = operator.post(TENANTS, json={"name": "o-wrong", "quotas": wrong})
        assert answer.status_code == 422, wrong
        assert answer.json()["errors"][0]["field"].startswith("body.quotas"), wrong
    assert runner(shared, "tenants", "set", "o-quotas", "--quota", "queue=1").returncode != 0


def test_a_suspended_tenant_only_reads(shared: Deployment, operator: httpx.Client) -> None:
    """All that runs or waits is ended, and nothing is accepted until the suspension ends."""
    id_, token = make(operator, "o-suspended", max_concurrency=1)
    with bearing(shared.url, token) as client:
        for _ in range(3):
            assert client.post("/v1/executions", json=SLOW).status_code == 202
        eventually(lambda: "running" in states(client))
        assert operator.post(f"{TENANTS}/{id_}/suspend", json={"why": "unpaid"}).is_success
        refused = client.post("/v1/executions", json=SLOW)
        assert refused.status_code == 403
        assert refused.json()["type"] == "urn:runner:problem:tenant-suspended"
        eventually(lambda: set(states(client)) == {"cancelled"})
        assert operator.post(f"{TENANTS}/{id_}/suspend", json={"why": "x"}).status_code == 409
        assert operator.post(f"{TENANTS}/{id_}/resume").is_success
        assert operator.post(f"{TENANTS}/{id_}/resume").status_code == 409
        assert client.post(
            "/v1/executions", json={**SLOW, "command": ["true"], "wait_s": 30}
        ).json()["state"] == "succeeded"  # fmt: skip
        records = [each["record"] for each in client.get("/v1/audit").json()["items"]]
    told = {each["action"]: each for each in records}
    assert told["tenant:suspend"]["actor"].startswith("operator:")
    assert told["tenant:suspend"]["metadata"] == {"why": "unpaid"}
    assert "tenant:resume" in told


def test_what_was_accepted_too_late_is_ended_too(
    shared: Deployment, operator: httpx.Client
) -> None:
    """A request that read its tenant before the suspension stored it: it is never claimed."""
    id_, token = make(operator, "o-late", max_concurrency=1)
    operator.post(f"{TENANTS}/{id_}/suspend", json={"why": "late"})
    with bearing(shared.url, token) as client:
        shared.sql(
            "INSERT INTO executions (tenant_id, execution_id, image, size, limits, isolation, "
            "egress, metadata, on_worker_loss, argv, env, stdin) VALUES (%s, gen_random_uuid(), "
            '\'python\', \'nano\', \'{"cpu": 1, "memory_mb": 64, "pids": 8, "disk_mb": 8, '
            "\"timeout_s\": 5, \"output_kb\": 8}', 'container', '[]', '{}', 'fail', '{true}', "
            "'{}', '')",
            id_,
        )
        eventually(lambda: states(client) == ["cancelled"])


def test_a_deletion_takes_everything_of_one_tenant(
    shared: Deployment, operator: httpx.Client
) -> None:
    """It removes rows of every table, objects and the log; the platform's log names them."""
    id_, token = make(operator, "o-ended")
    other, others = make(operator, "o-stays")
    body = {"command": ["sh", "-c", "echo x > out"], "wait_s": 30, "size": "nano"}
    for key in (token, others):
        with bearing(shared.url, key) as client:
            assert client.post("/v1/executions", json=body).json()["state"] == "succeeded"
            client.put("/v1/secrets/token", json={"value": "a-secret-value"})
            client.post("/v1/projects", json={"name": "reports"})
            client.put("/v1/egress-policies/some", json={"rules": ["a.example.com"]})
            length = len(client.get("/v1/audit").json()["items"])
    assert operator.delete(f"{TENANTS}/{id_}").status_code == 409
    before = rows(shared, other)
    operator.post(f"{TENANTS}/{id_}/suspend", json={"why": "ended"})
    removed = operator.delete(f"{TENANTS}/{id_}")
    assert removed.status_code == 200, removed.text
    said = removed.json()
    assert said["rows"]["executions"] == 1
    assert said["rows"]["tenants"] == 1
    assert said["audit_records"] == length + 1
    assert said["objects"] == 1
    assert rows(shared, id_) == {}
    after = rows(shared, other)
    # The worker may have signed a checkpoint of its chain meanwhile.
    assert after.pop("audit_checkpoints", 0) >= before.pop("audit_checkpoints", 0)
    assert after == before
    objects = shared.stack.settings.objects_dir / "tenants"
    assert {path.name for path in objects.iterdir()} >= {other}
    assert not (objects / id_).exists()
    with bearing(shared.url, token) as client:
        assert client.get("/v1/executions").status_code == 401
    records = shared.sql(
        "SELECT body::jsonb -> 'metadata' AS told FROM audit_events WHERE tenant_id = %s "
        "AND action = 'tenant:delete' AND resource_id = %s ORDER BY seq",
        "00000000-0000-0000-0000-000000000000", id_,
    )  # fmt: skip
    assert [each["told"]["phase"] for each in records] == ["begun", "done"]
    assert records[1]["told"]["audit_head"] == said["audit_head"]
    assert operator.get(f"{TENANTS}/{id_}").status_code == 404


def states(client: httpx.Client) -> list[str]:
    """Return the states of a tenant's executions."""
    return [each["state"] for each in client.get("/v1/executions").json()["items"]]


def rows(shared: Deployment, tenant: str) -> dict[str, int]:
    """Return how many rows of a tenant each table holds, if there are any."""
    tables = shared.sql(
        "SELECT c.relname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "AND a.attname = 'tenant_id' WHERE c.relkind = 'r'"
    )
    found = {
        table["name"]: shared.sql(
            f"SELECT count(*) AS n FROM {table['name']} WHERE tenant_id = %s",  # noqa: S608
            tenant,
        )[0]["n"]
        for table in tables
    }
    assert len(found) >= 14
    return {name: count for name, count in found.items() if count}


def test_the_operators_login_reads_nothing_of_a_tenant(
    shared: Deployment, operator: httpx.Client
) -> None:
    """It may count and delete, but the database does not let it see the rows' content."""
    id_, _ = make(operator, "o-private")
    url = shared.stack.services.operator_url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [id_])
        for column, table in (
            ("body", "audit_events"), ("sealed", "secrets"), ("argv", "executions"),
            ("chunk", "events"), ("content", "input_files"), ("hash", "api_keys"),
            ("object_key", "artifacts"), ("*", "audit_checkpoints"),
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT {column} FROM {table}".encode())  # noqa: S608
        for statement in (
            "UPDATE executions SET stdin = ''", "UPDATE audit_events SET body = ''",
            "INSERT INTO operators VALUES (gen_random_uuid(), 'x', 'x', '')",
            "DELETE FROM operators", "SELECT find_api_key('x')", "TRUNCATE audit_events",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_an_operators_key_that_is_revoked_is_over(shared: Deployment) -> None:
    """The command ends it at once; wrong keys are in the platform's log."""
    operator = shared.operator()
    assert operator.get(TENANTS).status_code == 200
    prefix = operator.headers["authorization"].split("_")[1]
    run = runner(shared, "operators", "revoke", f"ro_{prefix}")
    assert run.returncode == 0, run.stderr
    assert operator.get(TENANTS).status_code == 401
    actors = shared.sql("SELECT actor FROM audit_events WHERE action = 'authentication:verify'")
    assert f"operator:{prefix}" in {each["actor"] for each in actors}


def test_the_commands_do_what_the_routes_do(shared: Deployment) -> None:
    """They make, change, list, suspend, resume and delete; a deletion needs the name again."""
    made = runner(shared, "tenants", "create", "o-command", "--tier", "pro", "--max-size", "small")
    with bearing(shared.url, made.stdout.strip()) as client:
        assert client.get("/v1/executions").status_code == 200
    assert runner(shared, "tenants", "set", "o-command", "--concurrency", "2").returncode == 0
    listed = runner(shared, "tenants", "list").stdout
    assert "o-command" in listed
    suspended = runner(shared, "tenants", "suspend", "o-command", "--why", "ended")
    assert suspended.returncode == 0, suspended.stderr
    assert runner(shared, "tenants", "resume", "o-command").returncode == 0
    assert runner(shared, "tenants", "delete", "o-command", "--yes", "o-command").returncode != 0
    runner(shared, "tenants", "suspend", "o-command", "--why", "ended")
    assert runner(shared, "tenants", "delete", "o-command").returncode != 0
    gone = runner(shared, "tenants", "delete", "o-command", "--yes", "o-command")
    assert gone.returncode == 0, gone.stderr
    assert "audit log:" in gone.stdout


def runner(shared: Deployment, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the operator against this deployment."""
    services = shared.stack.services
    environment = {
        "PATH": "/usr/bin:/bin",
        "COLUMNS": "200",
        "RUNNER_STATE_DIR": str(shared.stack.settings.state_dir),
        "RUNNER_DATABASE_OWNER_URL": services.owner_url,
        "RUNNER_DATABASE_OPERATOR_URL": services.operator_url,
    }
    return subprocess.run(
        [sys.executable, "-m", "runner", *arguments],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
