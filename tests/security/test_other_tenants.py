"""Another tenant's ids, at every route that takes one: they are as unknown as any, without effect.

The API's own document says what there is to try. A new parameter fails here until somebody says how
to make another tenant's value for it.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import urlencode

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from runner.api.app import MODULES
from tests.support.deployment import Deployment, eventually
from tests.support.routes import BY_ADDRESS, UNKNOWN_ID, Operation, fetch

CANARY = "canary-of-theirs"


@dataclass
class Theirs:
    """The other tenant's things: by parameter, its own value and a value that nobody has."""

    values: dict[str, tuple[str, str]] = field(default_factory=dict)

    def swap(self, text: str) -> str:
        """Return an answer with the names in it made anonymous."""
        # The longest first: one name may be the beginning of another.
        for each in sorted(chain.from_iterable(self.values.values()), key=len, reverse=True):
            # As a word: the number of a process is a part of many others.
            text = re.sub(rf"(?<!\w){re.escape(each)}(?!\w)", "X", text)
        return re.sub(r"[0-9a-f]{32}|\d{4}-\d\d-\d\dT[\d:.]+Z?", "", text)


@pytest.fixture(scope="module")
def theirs(shared: Deployment) -> Theirs:
    """Return the other tenant's things, one of each kind."""
    return furnish(shared, "xt-theirs")


def furnish(deployment: Deployment, tenant: str) -> Theirs:
    """Give a tenant one thing of each kind that has a name or an id."""
    client = deployment.http(tenant)
    # Two kinds of things are called `name` in their paths; here one name stands for one of each.
    project, policy, secret = f"{CANARY}-project", f"{CANARY}-name", f"{CANARY}-name"
    assert client.post("/v1/projects", json={"name": project}).is_success
    assert client.put(f"/v1/egress-policies/{policy}", json={"rules": ["a.example"]}).is_success
    assert client.put(f"/v1/secrets/{secret}", json={"value": "a-secret-value"}).is_success
    assert client.put(f"/v1/files/{CANARY}.txt", content=CANARY).is_success
    key = client.post("/v1/keys", json={"name": CANARY, "role": "viewer"}).json()["key"]["id"]
    body = {"email": f"{CANARY}@example.com", "role": "viewer"}
    member = client.post("/v1/members", json=body).json()["member"]["id"]
    ran = client.post(
        "/v1/executions",
        json={
            "command": ["sh", "-c", f"echo {CANARY}; echo {CANARY} > {CANARY}.txt"],
            "project": project, "metadata": {"of": CANARY}, "size": "nano", "wait_s": 30,
        },
    ).json()  # fmt: skip
    assert ran["state"] == "succeeded", ran
    lives = client.post("/v1/sandboxes", json={"size": "nano", "metadata": {"of": CANARY}}).json()
    started = client.post(
        f"/v1/sandboxes/{lives['id']}/processes",
        json={
            "command": ["sleep", "600"], "tag": CANARY, "terminal": {"rows": 24, "columns": 80}
        },
    ).json()  # fmt: skip
    assert client.post(f"/v1/sandboxes/{lives['id']}/ports/4711", json={}).is_success
    opened = client.post(f"/v1/sandboxes/{lives['id']}/contexts", json={"language": "bash"}).json()
    kept = client.post(f"/v1/sandboxes/{lives['id']}/snapshots", json={"name": CANARY})
    assert kept.status_code == 201, kept.text
    # A build that goes on would change rows by itself: this one failed long ago.
    (built,) = deployment.sql(
        "INSERT INTO templates (tenant_id, template_id, name, tag, state, detail, created_by, "
        "due_at, ended_at, base_image, env, steps) SELECT tenant_id, gen_random_uuid(), %s, %s, "
        "'failed', 'it failed', 'key:none', now(), now(), 'python', '{}', '{}' FROM tenants "
        "WHERE name = %s RETURNING template_id::text AS id",
        CANARY, CANARY, tenant,
    )  # fmt: skip
    # Records of processes are written in batches: what comes later would look like a change.
    batches = {"sandbox:contexts", "sandbox:processes", "sandbox:files"}

    def recorded() -> set[str]:
        records = client.get("/v1/audit", params={"limit": 200}).json()["items"]
        return {each["record"]["action"] for each in records}

    eventually(lambda: batches <= recorded())
    # Everything else with this name is as secret: the names hold the canary.
    return Theirs(
        {
            "execution_id": (ran["id"], UNKNOWN_ID),
            "sandbox_id": (lives["id"], UNKNOWN_ID),
            "snapshot_id": (kept.json()["id"], UNKNOWN_ID),
            "template_id": (built["id"], UNKNOWN_ID),
            "tag": ("first-tag", "other-tag"),
            "process": (str(started["process"]), "4000"),
            "port": ("4711", "4712"),
            "context": (str(opened["context"]), "4001"),
            "path": (f"{CANARY}.txt", "nobodys.txt"),
            "project": (project, "nobodys-project"),
            "name": (policy, "nobodys-policy"),
            "key_id": (key, UNKNOWN_ID),
            "member_id": (member, UNKNOWN_ID),
            "session_id": (UNKNOWN_ID, UNKNOWN_ID),
            "resource_id": (ran["id"], UNKNOWN_ID),
        }
    )


NAMED = {
    "PUT /v1/secrets/{name}",
    "PUT /v1/egress-policies/{name}",
    "PUT /v1/files/{path}",
}
"""Names belong to a tenant: these routes make one, even if another tenant has the same."""


@pytest.fixture(scope="module")
def with_ids(shared: Deployment) -> list[Operation]:
    """Return the tenants' operations that take an id or a name in their path."""
    return taking_ids(shared)


def taking_ids(deployment: Deployment) -> list[Operation]:
    """Return these operations; those that make what they name come last."""
    found = (
        each
        for each in fetch(deployment.url)
        if each.path.startswith("/v1/") and each.in_path and each.route not in BY_ADDRESS
    )
    return sorted(found, key=lambda each: each.route in NAMED)


def leaks(
    deployment: Deployment, tried: list[Operation], theirs: Theirs, ours: httpx.Client
) -> Iterator[str]:
    """Yield where an answer tells another tenant's things from unknown ones, or changes them."""
    before = state(deployment)
    for operation in tried:
        answers = []
        for which in (0, 1):
            values = {name: theirs.values[name][which] for name in operation.in_path}
            answer = operation.send(ours, values)
            answers.append((answer.status_code, theirs.swap(answer.text)))
        if answers[0] != answers[1]:
            yield f"{operation.route}: {answers}"
        elif operation.route not in NAMED and answers[0][0] != 404:
            yield f"{operation.route}: {answers[0]}"
        if CANARY in answers[0][1]:
            yield f"{operation.route}: shows what is theirs"
    after = state(deployment)
    yield from (f"{table}: theirs changed" for table in after if after[table] != before[table])


SEALS = {"audit_checkpoints", "audit_cursors", "usage_records", "usage_days"}
"""The worker writes these in its own time: after the log has grown, and while sandboxes live."""


def state(deployment: Deployment, tenant: str = "xt-theirs") -> dict[str, str]:
    """Return a digest of every row of the other tenant, table by table."""
    tables = deployment.sql(
        "SELECT c.relname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "AND a.attname = 'tenant_id' WHERE c.relkind = 'r'"
    )
    digest = (
        # Without leases, which nodes renew all the time, and what they count meanwhile.
        "SELECT md5(string_agg(row, '' ORDER BY row)) AS digest FROM (SELECT (to_jsonb(t) - "
        "'{{lease_until,counted_at,counted_cpu_s,counted_up,counted_down,counted_port_in,"
        "counted_port_out,slices}}'::text[])::text AS row FROM {} t WHERE tenant_id "
        "= (SELECT tenant_id FROM tenants WHERE name = %s)) AS rows"
    )
    return {
        table["name"]: deployment.sql(digest.format(table["name"]), tenant)[0]["digest"]
        for table in tables
        if table["name"] not in SEALS
    }


def test_every_parameter_can_be_tried(with_ids: list[Operation], theirs: Theirs) -> None:
    """A new parameter must get a value here first."""
    assert {name for each in with_ids for name in each.in_path} <= set(theirs.values)
    assert len(with_ids) >= 17


def test_ids_of_others_are_as_unknown_as_any(
    shared: Deployment, with_ids: list[Operation], theirs: Theirs
) -> None:
    """Status and words are as for an id that nobody has; nothing of the other tenant changes."""
    assert list(leaks(shared, with_ids, theirs, shared.http("xt-ours"))) == []


def test_no_route_is_missing_in_the_document() -> None:
    """A hidden route would not be tried here."""
    routers = [module.router for module in MODULES]
    routes = [route for router in routers for route in router.routes]
    there = [each for each in routes if getattr(each, "path", "/v1/").startswith("/v1/")]
    assert [each for each in there if not getattr(each, "include_in_schema", False)] == []
    assert sum("{sandbox_id}" in str(getattr(each, "path", "")) for each in there) >= 20


def test_no_websocket_of_others_is_opened(
    shared: Deployment, with_ids: list[Operation], theirs: Theirs
) -> None:
    """Every route of a sandbox that is read is asked for one. Only its own tenant gets one."""
    tried = [e for e in with_ids if e.method == "GET" and "sandbox_id" in e.in_path]
    paths = []
    for operation in tried:
        path = operation.path
        for name in operation.in_path:
            path = path.replace(f"{{{name}}}", theirs.values[name][0])
        paths.append(f"{path}?{urlencode(operation.needed)}")
    other = shared.key("xt-sockets")
    assert {path: handshake(shared, other, path) for path in paths} == dict.fromkeys(paths, 404)
    terminals = [path for path in paths if "/terminal?" in path]
    own = shared.key("xt-theirs")
    assert [handshake(shared, own, path) for path in terminals] == [101], "the control"
    assert len(tried) >= 8


def handshake(deployment: Deployment, key: str, path: str) -> int:
    """Ask for a WebSocket; return the status of the answer."""
    url = f"{deployment.url.replace('http', 'ws', 1)}{path}"
    try:
        with connect(url, additional_headers={"Authorization": f"Bearer {key}"}, proxy=None):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def test_filters_and_cursors_show_nothing_of_others(shared: Deployment, theirs: Theirs) -> None:
    """Every text parameter of every listing is tried with each id and name of the other tenant."""
    ours = shared.http("xt-filters")
    tried: Counter[str] = Counter()
    for operation in fetch(shared.url):
        if not operation.path.startswith("/v1/") or operation.in_path or operation.method != "GET":
            continue
        for name in operation.in_query:
            for mine, nobodys in theirs.values.values():
                answers = [operation.send(ours, query={name: each}) for each in (mine, nobodys)]
                assert answers[0].status_code == answers[1].status_code, (operation.route, name)
                assert CANARY not in theirs.swap(answers[0].text), (operation.route, name)
                tried[operation.route] += 1
    assert tried.total() >= 60, tried


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"project": f"{CANARY}-project"}, "body.project"),
        ({"egress_policy": f"{CANARY}-name"}, "body.egress_policy"),
    ],
)
def test_what_a_request_names_is_its_own_tenants(
    shared: Deployment, theirs: Theirs, body: dict[str, str], field: str
) -> None:
    """Another tenant's project or policy is treated as missing."""
    answer = shared.http("xt-bodies").post("/v1/executions", json={"command": ["true"], **body})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_another_tenants_secret_is_not_injected(shared: Deployment, theirs: Theirs) -> None:
    """The execution fails as it does for a secret that nobody has."""
    ours = shared.http("xt-bodies")
    ends = []
    for name in (f"{CANARY}-name", "nobodys-secret"):
        body = {
            "command": ["printenv", "S"], "secret_env": {"S": name}, "size": "nano", "wait_s": 30
        }  # fmt: skip
        answer = ours.post("/v1/executions", json=body)
        said = answer.json()
        said = said if answer.status_code == 422 else {k: said[k] for k in ("state", "result")}
        ends.append(re.sub(r"[0-9a-f]{32}", "", str(said).replace(name, "X")))
        assert "a-secret-value" not in answer.text
    assert ends[0] == ends[1]


@pytest.mark.parametrize("hidden", ["tenant_id", "tenant", "role", "principal", "app.tenant_id"])
def test_nobody_names_a_tenant(shared: Deployment, theirs: Theirs, hidden: str) -> None:
    """No body, query or header names one: only the key says whose data a request is about."""
    ours = shared.http("xt-mass")
    their_id = shared.sql("SELECT tenant_id FROM tenants WHERE name = 'xt-theirs'")[0]["tenant_id"]
    header = {f"X-{hidden.replace('.', '-')}": str(their_id)}
    listed = ours.get("/v1/executions", headers=header)
    assert listed.json() == {"items": [], "next_cursor": None}
    asked = ours.get("/v1/executions", params={hidden: str(their_id)})
    assert (asked.status_code, asked.json()["errors"][0]["field"]) == (422, f"query.{hidden}")
    body = {"command": ["true"], hidden: str(their_id)}
    assert ours.post("/v1/executions", json=body, headers=header).status_code == 422


def test_the_probe_finds_leaks_once_the_database_forgets_tenants(own: Deployment) -> None:
    """The control: without row-level security, the same probe finds leaks at many routes."""
    theirs = furnish(own, "xt-theirs")
    tried = taking_ids(own)
    assert list(leaks(own, tried, theirs, own.http("xt-before"))) == []
    for table in state(own):
        own.sql(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    found = list(leaks(own, tried, theirs, own.http("xt-after")))
    assert len({each.partition(":")[0] for each in found}) >= 6, found
