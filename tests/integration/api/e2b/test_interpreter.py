"""E2B's code interpreter without their SDK: lines, tokens, and clients that leave."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from runner.api.e2b.paths import INTERPRETER_PORT
from tests.support.deployment import PORTS_DOMAIN, Deployment, eventually
from tests.support.e2b import control, create, within

PORT = 8125
SERVER = f"""python3 -c '
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(list(map(str.lower, self.headers.keys()))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", {PORT}), Handler).serve_forever()
' >/dev/null 2>&1 &"""


@pytest.fixture(scope="module")
def sandbox(deployed: Deployment) -> dict[str, Any]:
    """Return a sandbox for tests that leave it well."""
    return create(control(deployed, "interpreted"), timeout=600)


@pytest.fixture(scope="module")
def inside(deployed: Deployment, sandbox: dict[str, Any]) -> httpx.Client:
    """Return a client of its interpreter."""
    return within(deployed, sandbox, E2b_Sandbox_Port=str(INTERPRETER_PORT))


@pytest.fixture
def by_traffic(deployed: Deployment, sandbox: dict[str, Any]) -> Iterator[httpx.Client]:
    """Return a client that has the token for the sandbox's ports alone."""
    headers = {
        "E2b-Sandbox-Id": sandbox["sandboxID"],
        "E2b-Sandbox-Port": str(INTERPRETER_PORT),
        "E2B-Traffic-Access-Token": sandbox["trafficAccessToken"],
    }
    with httpx.Client(base_url=deployed.url, headers=headers, timeout=120) as client:
        yield client


def ran(client: httpx.Client, code: str, **fields: Any) -> list[dict[str, Any]]:
    """Run code in bash; return the lines of the answer."""
    asked = {"code": code, "language": "bash", **fields}
    answer = client.post("/execute", json=asked)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_what_happens_comes_as_lines(inside: httpx.Client) -> None:
    *_, count, end = lines = ran(inside, "echo out; echo err >&2")
    said = {each["type"]: each["text"] for each in lines if "text" in each}
    assert said == {"stdout": "out\n", "stderr": "err\n"}
    assert count["type"] == "number_of_executions"
    assert end == {"type": "end_of_execution"}
    failed = [each for each in ran(inside, "(exit 3)") if each["type"] == "error"]
    assert [each["value"] for each in failed] == ["exit code 3"]


def test_all_who_name_no_context_share_one(inside: httpx.Client) -> None:
    ran(inside, "shared=5")
    assert ran(inside, "echo $shared")[0]["text"] == "5\n"
    own = inside.post("/contexts", json={"language": "bash"}).json()
    (text,) = [
        each["text"]
        for each in ran(inside, "echo [$shared]", context_id=own["id"], language=None)
        if each["type"] == "stdout"
    ]
    assert text == "[]\n"
    assert inside.delete(f"/contexts/{own['id']}").status_code == 204


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"code": "1", "language": "r"}, "javascript"),
        ({"code": "1", "language": "bash", "context_id": "1"}, "only one of"),
        ({"code": 1}, "code"),
        ({"language": "bash"}, "code"),
        ({"code": "1", "env_vars": {"=": "x"}}, "env_vars"),
    ],
)
def test_what_cannot_be_run_is_refused(
    inside: httpx.Client, body: dict[str, Any], said: str
) -> None:
    answer = inside.post("/execute", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"code", "message"}
    assert said in answer.json()["message"]


@pytest.mark.parametrize("context", ["none", "0", "999999999", "-1", "1e3", "٣"])
def test_a_context_that_is_not_there(inside: httpx.Client, context: str) -> None:
    assert inside.post(f"/contexts/{context}/restart").status_code == 404
    assert inside.delete(f"/contexts/{context}").status_code == 404
    asked = {"code": "echo", "context_id": context}
    assert inside.post("/execute", json=asked).status_code == 404


def test_a_client_that_hangs_up_interrupts_its_code(inside: httpx.Client) -> None:
    asked = {"code": "mark=kept; echo begun; sleep 600; mark=lost", "language": "bash"}
    with inside.stream("POST", "/execute", json=asked) as answer:
        for line in answer.iter_lines():
            if json.loads(line)["type"] == "stdout":
                break
    assert ran(inside, "echo $mark")[0]["text"] == "kept\n"


def test_a_sandbox_that_ends_breaks_the_answer_off(deployed: Deployment) -> None:
    """No client may take it for whole."""
    caller = control(deployed, "interpreted")
    made = create(caller)
    client = within(deployed, made, E2b_Sandbox_Port=str(INTERPRETER_PORT))
    asked = {"code": "echo begun; sleep 600", "language": "bash"}
    with client.stream("POST", "/execute", json=asked) as answer:
        lines = answer.iter_lines()
        assert "begun" in next(lines)
        assert caller.delete(f"/sandboxes/{made['sandboxID']}").status_code == 204
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)


def test_the_token_for_ports_opens_contexts_and_nothing_else_inside(
    by_traffic: httpx.Client, inside: httpx.Client
) -> None:
    """The control: with the other token, the same requests are answered."""
    assert by_traffic.get("/contexts").status_code == 200
    asked = {"code": "echo", "language": "bash"}
    for method, path, body in (
        ("POST", "/execute", asked),
        ("GET", "/health", None),
        ("GET", "/files?path=x", None),
    ):
        assert by_traffic.request(method, path, json=body).status_code == 401
        assert inside.request(method, path, json=body).status_code != 401


def test_the_token_for_ports_reaches_those_of_its_sandbox_alone(
    deployed: Deployment, sandbox: dict[str, Any], inside: httpx.Client
) -> None:
    """The server inside never sees it."""
    ran(inside, SERVER)
    other = create(control(deployed, "interpreted"))
    host = f"{PORT}-{sandbox['sandboxID']}.{PORTS_DOMAIN}"

    def asked(token: str) -> httpx.Response:
        headers = {"Host": host, "E2B-Traffic-Access-Token": token}
        return httpx.get(f"{deployed.url}/", headers=headers, timeout=60)

    eventually(lambda: asked(sandbox["trafficAccessToken"]).is_success)
    seen = asked(sandbox["trafficAccessToken"]).json()
    assert "host" in seen
    assert "e2b-traffic-access-token" not in seen
    for wrong in (sandbox["envdAccessToken"], other["trafficAccessToken"], "tt_", ""):
        assert asked(wrong).status_code == 401
