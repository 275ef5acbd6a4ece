"""The API against its own OpenAPI document: malformed requests are refused, never a 5xx."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.deployment import Deployment
from tests.support.routes import UNKNOWN_ID, operations

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,negative_data_rejection"
)


def test_every_operation_says_what_it_does_and_how_it_fails(document: dict[str, Any]) -> None:
    """It has a summary, a description, and a problem document for each error."""
    for each in operations(document):
        route, operation = each.route, each.described
        assert operation.get("summary"), route
        assert operation.get("description"), route
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")) and route != "GET /readyz":
                assert list(response["content"]) == ["application/problem+json"], (route, status)
        if each.path.startswith("/v1/"):
            assert {"401", "403", "422", "503"} <= set(operation["responses"]), route


def test_every_answer_says_what_it_holds(shared: Deployment, document: dict[str, Any]) -> None:
    """The document and the page say so, also for events, whose text has its own schema."""
    page = httpx.get(f"{shared.url}/docs").text
    named = set(re.findall(r'<section id="(\w+)">', page))
    assert named == set(document["components"]["schemas"])
    assert set(re.findall(r'href="#(\w+)"', page)) <= named | {"schemas"}
    for each in operations(document):
        for status, response in each.described["responses"].items():
            assert response["description"] != "Successful Response", each.route
            for content in response.get("content", {}).values():
                described = content.get("schema") or content.get("itemSchema")
                assert described or each.method == "HEAD", (each.route, status)
    events = document["paths"]["/v1/executions/{execution_id}/events"]["get"]["responses"]["200"]
    item = events["content"]["text/event-stream"]["itemSchema"]["properties"]
    assert item["event"]["enum"] == ["state", "stdout", "stderr", "egress"]
    assert item["data"]["contentSchema"] == {"$ref": "#/components/schemas/EventView"}


def test_requests_and_answers_come_with_examples(document: dict[str, Any]) -> None:
    """The bodies that people write and read first are shown."""
    schemas = document["components"]["schemas"]
    for name in ("Submission", "ExecutionView", "NewSandbox", "SandboxView", "NewProcess",
                 "ProcessView", "Problem"):  # fmt: skip
        assert schemas[name]["examples"], name


@pytest.mark.timeout(640)
@pytest.mark.parametrize(
    ("phases", "most"),
    [
        pytest.param("examples,fuzzing", 4, id="some"),
        pytest.param("examples,coverage,fuzzing,stateful", 12, id="all", marks=pytest.mark.matrix),
    ],
)
def test_every_malformed_request_gets_a_problem_document(
    shared: Deployment, tmp_path: Path, phases: str, most: int
) -> None:
    """Schemathesis sends valid and invalid data; no answer is a 5xx or contradicts the document."""
    key = shared.key("fuzzed")
    # Beyond its own list: a URL that is too long, and no handshake (RFC 9110, 15.5.15 and 15.5.22).
    (tmp_path / "schemathesis.toml").write_text(
        "[checks.negative_data_rejection]\nexpected-statuses = "
        "[400, 401, 403, 404, 405, 406, 409, 410, 411, 412, 413, 414, 415, 422, 426, 428, 429]\n"
    )
    (tmp_path / "archives.py").write_text(
        "import schemathesis\n"
        "schemathesis.serializer.alias('application/x-tar', 'application/octet-stream')\n"
    )
    ran = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", f"{shared.url}/openapi.json",
            "--header", f"Authorization: Bearer {key}",
            "--checks", CHECKS,
            # Streams, and a port, on which nothing listens.
            "--exclude-path-regex", r"/(events|output|watch|tcp/\{port\})$",
            "--exclude-checks", "positive_data_acceptance",
            "--phases", phases,
            "--max-examples", str(most),
            "--seed", "7",
            "--suppress-health-check", "all",
            "--generation-database", "none",
            "--request-timeout", "70",
            "--workers", "1",
            "--no-color",
        ],
        capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "archives", "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]


CASES = {
    "not JSON": (b"{", {}, 400),
    "no body": (b"", {}, 422),
    "a list": (b"[]", {}, 422),
    "deep nesting": (b"[" * 100_000, {}, 400),
    "both code and command": (b'{"code": "1", "language": "python", "command": ["a"]}', {}, 422),
    "unknown field": (b'{"command": ["true"], "tenant_id": "x"}', {}, 422),
    "NUL in an argument": (b'{"command": ["a\\u0000"]}', {}, 422),
    "a lone surrogate": (b'{"command": ["a\\ud800"]}', {}, 422),
    "a path upwards": (b'{"command": ["a"], "files": {"../x": {"text": ""}}}', {}, 422),
    "an absolute path": (b'{"command": ["a"], "files": {"/x": {"text": ""}}}', {}, 422),
    "a file that is a folder": (
        b'{"command": ["a"], "files": {"x": {"text": ""}, "x/y": {"text": ""}}}', {}, 422,
    ),
    "bad base64": (b'{"command": ["a"], "files": {"x": {"base64": "!"}}}', {}, 422),
    "above the tenant's maximum": (b'{"command": ["a"], "limits": {"cpu": 32}}', {}, 422),
    "not a number": (b'{"command": ["a"], "limits": {"cpu": NaN}}', {}, 400),
    "an unknown size": (b'{"command": ["a"], "size": "gigantic"}', {}, 422),
    "an unknown image": (b'{"command": ["a"], "image": "windows"}', {}, 422),
    "a bad idempotency key": (b'{"command": ["a"]}', {"Idempotency-Key": "x" * 129}, 422),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_request_that_is_wrong_is_told_so(name: str, shared: Deployment) -> None:
    """The error has the usual shape, the right status and the request's id, but no given value."""
    body, headers, status = CASES[name]
    answer = httpx.post(
        f"{shared.url}/v1/executions",
        content=body,
        headers={
            "Authorization": f"Bearer {shared.key('wrong')}",
            "Content-Type": "application/json",
            **headers,
        },
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["instance"] == f"urn:runner:request:{answer.headers['x-request-id']}"
    assert problem["status"] == status
    assert "server" not in answer.headers


def test_a_body_above_the_limit_is_refused_before_it_is_read(shared: Deployment) -> None:
    """It gets 413, whether its length is declared or not."""
    key = {
        "Authorization": f"Bearer {shared.key('large')}",
        "Content-Type": "application/json",
    }
    url = f"{shared.url}/v1/executions"
    large = b"x" * (17 * 2**20)
    for content in (large, (large[at : at + 2**20] for at in range(0, len(large), 2**20))):
        try:
            answer = httpx.post(url, content=content, headers=key, timeout=30)
        except httpx.WriteError:
            continue  # The server answered and closed while we were still sending.
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer x", "Basic eDp4", "Bearer rk_aaaaaaaaaaaa_" + "A" * 43],
)
def test_every_bad_credential_gets_the_same_answer(header: str, shared: Deployment) -> None:
    """Missing, malformed and unknown keys cannot be told apart."""
    answer = httpx.get(f"{shared.url}/v1/executions", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["detail"].startswith("a valid API key is needed")


def test_a_wrong_secret_is_refused_and_audited_where_its_prefix_belongs(shared: Deployment) -> None:
    """The tenant sees that somebody tried with its key's prefix."""
    key = shared.key("guessed")
    forged = key[:-43] + "A" * 43
    answer = httpx.get(f"{shared.url}/v1/executions", headers={"Authorization": f"Bearer {forged}"})
    assert answer.status_code == 401
    records = shared.client("guessed").audit(action="authentication:verify")["items"]
    assert [each["record"]["outcome"] for each in records] == ["failure"]
    assert forged not in str(records)


def test_what_is_no_id_is_as_unknown_as_any(shared: Deployment) -> None:
    """No answer reveals how ids are made."""
    client = shared.http("ids")
    for path in ("/v1/executions", "/v1/keys"):
        for id_ in ("no-uuid", "0199f2a1", UNKNOWN_ID):
            assert client.get(f"{path}/{id_}").status_code == 404


def test_twenty_submissions_with_one_key_make_one_execution(shared: Deployment) -> None:
    """This holds for concurrent ones; another body with that key is a conflict."""
    headers = {
        "Authorization": f"Bearer {shared.key('idempotent')}",
        "Idempotency-Key": "twenty",
    }

    def submit(word: str) -> httpx.Response:
        body = {"command": ["echo", word], "size": "nano"}
        return httpx.post(f"{shared.url}/v1/executions", json=body, headers=headers, timeout=30)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(submit, ["same"] * 20))
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert submit("other").status_code == 409
    other = httpx.post(
        f"{shared.url}/v1/executions",
        json={"command": ["echo", "other"]},
        headers={**headers, "Authorization": f"Bearer {shared.key('another')}"},
    )
    assert other.status_code == 202, "keys are per tenant"


def test_metrics_name_routes_and_hold_no_tenant(shared: Deployment) -> None:
    """They are in Prometheus' text format, with route templates as labels."""
    shared.client("measured").run(command=["true"])
    text = httpx.get(f"{shared.url}/metrics").text
    assert 'runner_http_requests_total{method="POST",route="/v1/executions",status="200"}' in text
    assert 'runner_executions{state="queued"}' in text
    assert "measured" not in text


def test_health_tells_alive_and_ready(shared: Deployment) -> None:
    """Without a key."""
    assert httpx.get(f"{shared.url}/healthz").json() == {"status": "ok"}
    ready = httpx.get(f"{shared.url}/readyz").json()
    assert ready == {"status": "ok", "parts": {"postgres": "ok", "redis": "ok", "rights": "ok"}}


def test_pages_of_executions_cover_everything_once(shared: Deployment) -> None:
    """Cursors lead through all of them, newest first, within the filters."""
    client = shared.client("paged")
    made = [client.submit(command=["true"], size="nano").id for _ in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        page, cursor = client.list(limit=3, cursor=cursor)
        seen += [each.id for each in page]
        if cursor is None:
            break
    assert seen == made[::-1]
    for id_ in made:
        client.wait(client.get(id_))
    assert len(client.list(state=["succeeded"])[0]) == 7
    assert client.list(state=["failed"])[0] == []
