"""Headers for browsers on every answer: of each route, of each kind, and of the server."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from runner.api.edge.bounds import (
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_QUERY_PARAMETERS,
    MAX_TARGET_BYTES,
)
from runner.api.edge.headers import SecurityHeaders
from runner.words.principal import Role
from tests.support import wire
from tests.support.deployment import NO_POOL, Deployment, deployment
from tests.support.interfaces import hidden, unserved

REQUIRED = {
    "strict-transport-security": "max-age=63072000; includeSubDomains",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-xss-protection": "0",
}
POLICY = {"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"}
FORBIDDEN = {"server", "x-powered-by", "via", "x-process-time"}
JSON = {"Content-Type": "application/json"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")


def faults(headers: dict[str, str]) -> list[str]:
    """Return what an answer's headers lack, or wrongly reveal."""
    wrong = [
        f"{name} is {headers.get(name)}" for name in REQUIRED if headers.get(name) != REQUIRED[name]
    ]
    policy = {each.strip() for each in headers.get("content-security-policy", "").split(";")}
    if not (policy >= POLICY or "sandbox" in policy):
        wrong.append(f"content-security-policy is {policy}")
    if "camera=()" not in headers.get("permissions-policy", ""):
        wrong.append("no permissions-policy")
    if headers.get("cache-control") not in {"no-store", "no-cache"}:
        wrong.append(f"cache-control is {headers.get('cache-control')}")
    wrong += [f"tells {name}" for name in FORBIDDEN & headers.keys()]
    wrong += [f"opens {name}" for name in headers if name.startswith("access-control-")]
    return wrong


def paths(document: dict[str, Any]) -> list[str]:
    """Return each path with something in place of its parameters."""
    made = []
    for template in document["paths"]:
        path = template
        for name in ("execution_id", "path", "name"):
            path = path.replace(f"{{{name}}}", "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2")
        made.append(path)
    return [
        *made,
        *sorted({each.path for each in hidden(unserved())}),
        "/openapi.json",
        "/docs",
        "/console",
        "/console/operator",
        "/console/licences.txt",
        "/redoc",
        "/",
        "/v1",
        "/v1/",
        "/v1/none",
        "/none",
        "/favicon.ico",
    ]


def answers(shared: Deployment) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield an answer of every kind on every route: the request, and its status and headers."""
    key = {"Authorization": f"Bearer {shared.key('walked')}"}
    viewer = {"Authorization": f"Bearer {shared.key('walked', role=Role.VIEWER)}"}
    with httpx.Client(base_url=shared.url, timeout=30) as client:
        document = client.get("/openapi.json").json()
        for path in paths(document):
            for method in METHODS:
                for who, credential in (("stranger", {}), ("owner", key), ("viewer", viewer)):
                    got = client.request(method, path, headers=credential)
                    yield f"{method} {path} {who} {got.status_code}", lowered(got)
        asked: dict[str, Callable[[], httpx.Response]] = {
            "wrong key": lambda: client.get(
                "/v1/executions", headers={"Authorization": "Bearer x"}
            ),
            "no JSON": lambda: client.post("/v1/executions", content=b"{", headers=key | JSON),
            "not valid": lambda: client.post("/v1/executions", json={}, headers=key),
            "accepted": lambda: client.post(
                "/v1/executions", json={"command": ["true"]}, headers=key
            ),
            "wrong type": lambda: client.post("/v1/executions", content=b"x", headers=key),
            "too large": lambda: client.post(
                "/v1/executions", content=b"x" * (17 * 2**20), headers=key | JSON
            ),
            "long URL": lambda: client.get("/" + "x" * MAX_TARGET_BYTES),
            "many headers": lambda: client.get(
                "/", headers={f"X-{n}": "1" for n in range(MAX_HEADERS)}
            ),
            "long headers": lambda: client.get("/", headers={"X-Long": "x" * MAX_HEADER_BYTES}),
            "many parameters": lambda: client.get("/?" + "&" * MAX_QUERY_PARAMETERS),
            "another origin": lambda: client.get(
                "/v1/executions", headers={**key, "Origin": "https://evil.test"}
            ),
            "a preflight": lambda: client.options(
                "/v1/executions",
                headers={"Origin": "https://evil.test", "Access-Control-Request-Method": "POST"},
            ),
        }
        for name, ask in asked.items():
            got = ask()
            yield f"{name} {got.status_code}", lowered(got)
    for name, request in {
        "not HTTP": b"\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n",
        "no host": b"GET / HTTP/1.1\r\n\r\n",
        "two lengths": wire.head("POST", "/", Content_Length="1, 2"),
        "an old version": b"GET / HTTP/0.9\r\n\r\n",
        "a bad header": b"GET / HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n",
        "a bad chunk": wire.head(
            "POST", "/v1/executions", Transfer_Encoding="chunked", **key, **JSON
        ) + b"nonsense\r\n",
        "an endless head": b"GET / HTTP/1.1\r\nX: " + b"x" * 2**17,
        "an upgrade": wire.head("GET", "/healthz", Connection="Upgrade", Upgrade="websocket"),
    }.items():  # fmt: skip
        status, headers, _ = wire.exchange(shared.url, request)
        yield f"{name} {status}", headers


def lowered(answer: httpx.Response) -> dict[str, str]:
    """Return headers by lower-case name."""
    return {name.lower(): value for name, value in answer.headers.items()}


def test_every_answer_of_every_kind_has_every_header(shared: Deployment) -> None:
    """This includes uvicorn's own answers; nothing names the server or opens the API to pages."""
    found = list(answers(shared))
    wrong = {asked: wrong for asked, headers in found if (wrong := faults(headers))}
    assert wrong == {}
    seen = {asked.rpartition(" ")[2] for asked, _ in found}
    assert seen >= {
        "200",
        "400",
        "401",
        "403",
        "404",
        "405",
        "413",
        "414",
        "415",
        "422",
        "431",
    }
    # A submission's answer depends on whether the execution has ended by then.
    assert seen & {"201", "202"}
    assert len(found) > 300


async def test_an_app_without_the_control_is_found_out() -> None:
    """The control: FastAPI alone sends none of them."""
    without, with_it = FastAPI(), FastAPI()
    with_it.add_middleware(SecurityHeaders)
    for app, lacking in ((without, len(REQUIRED) + 3), (with_it, 0)):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert len(faults(lowered(await client.get("/none")))) == lacking


def test_what_the_server_answers_itself_is_a_problem_document(shared: Deployment) -> None:
    """No answer is uvicorn's plain text."""
    status, headers, body = wire.exchange(shared.url, b"nonsense\r\n\r\n")
    assert status == 400
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert headers["x-request-id"].encode() in body


@pytest.fixture(scope="module")
def opened(image: None) -> Iterator[Deployment]:
    """Return a deployment that one origin's pages may call."""
    with deployment(cors_origins=("https://app.example",), **NO_POOL) as made:
        yield made


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [
        ("https://app.example", True),
        ("http://app.example", False),
        ("https://app.example.evil.test", False),
        ("https://evil.test", False),
        ("https://app.example:8443", False),
        ("null", False),
    ],
)
def test_pages_of_the_named_origin_alone_may_read(
    origin: str, admitted: bool, opened: Deployment
) -> None:
    """Only exactly that origin may, never a wildcard, and never with cookies."""
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    preflight = httpx.options(f"{opened.url}/v1/executions", headers=asked)
    plain = httpx.get(f"{opened.url}/healthz", headers={"Origin": origin})
    for answer in (preflight, plain):
        assert answer.headers.get("access-control-allow-origin") == (origin if admitted else None)
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in answer.headers["vary"]
    assert preflight.is_success is admitted
