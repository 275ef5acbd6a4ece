"""The checks before every route hold for E2B's, LibreChat's and SandboxFusion's routes and `/mcp`.

The API's own document leaves these routes out, so the tests that read it do not try them. Each
refusal has the shape that the interface's clients read.
"""

import json
from collections.abc import Iterator, Mapping

import pytest

from runner.api.e2b.paths import Part, part_of
from runner.api.edge.bounds import READ_ONCE
from runner.api.librechat import paths as librechat
from runner.auth.keys import in_e2b_form
from runner.words.sandbox import Isolation
from tests.support import deployment as deployments
from tests.support import wire
from tests.support.deployment import NO_POOL, Deployment
from tests.support.e2b import control, create
from tests.support.interfaces import EVERY, IMAGES, Hidden, hidden, streamed_of, unserved

APP = unserved()
ROUTES = tuple(hidden(APP))
STREAMED = streamed_of(APP)
ODD = ("%0A", "%0D%0A", "%00", "%7F", "%1B", "%ff", "%c0%ae")
TENANT = "interfaces"
OF_THE_SERVER = {"content-length", "host", "transfer-encoding"}
"""Headers of which the server itself refuses two, before it knows a path (RFC 9112)."""
BY_NAME = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)


@pytest.fixture(scope="module")
def offering(image: None) -> Iterator[Deployment]:
    """Return a deployment that offers every interface, on a host without gVisor."""
    for each in IMAGES:
        deployments.build_image(each)
    only = (Isolation.CONTAINER,)
    with deployments.deployment(**EVERY, isolation=only, **NO_POOL) as made:
        yield made


@pytest.fixture(scope="module")
def inside(offering: Deployment) -> Mapping[str, str]:
    """Return what names a sandbox of E2B's clients, and proves that it is the caller's."""
    made = create(control(offering, TENANT), timeout=3000)
    return {"e2b-sandbox-id": made["sandboxID"], "x-access-token": made["envdAccessToken"]}


def credential(route: Hidden, key: str, inside: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers by which a route knows the owner of everything."""
    match part_of(route.template):
        case Part.INSIDE:
            return inside
        case Part.CONTROL:
            return {"x-api-key": in_e2b_form(key)}
    if librechat.is_theirs(route.template):
        return {"x-api-key": key}
    return {"authorization": f"Bearer {key}"}


def own_error(route: Hidden, answer: tuple[int, dict[str, str], bytes], status: int) -> bool:
    """Return whether an answer is this error, as the route's interface tells it."""
    got, headers, body = answer
    return got == status and route.is_own_error(status, headers["content-type"], body)


def test_every_interface_is_tried() -> None:
    names = {route.name for route in ROUTES}
    assert {"POST /mcp", "POST /run_code", "POST /librechat/exec"} < names
    assert {"POST /v2/sandboxes", "POST /process.Process/Start", "POST /execute"} < names
    assert len(names) > 100


@pytest.mark.parametrize("name", sorted(each.decode() for each in READ_ONCE))
def test_a_header_with_one_value_is_refused_twice_on_every_route(
    name: str, offering: Deployment
) -> None:
    given = {
        "authorization": f"Bearer {offering.key(TENANT)}",
        "content-type": "application/json",
    }
    for route in ROUTES:
        request = wire.twice(name, route.method, route.path, given)
        answer = wire.exchange(offering.url, request)
        told_by = Hidden("GET", "/") if name in OF_THE_SERVER else route
        assert own_error(told_by, answer, 400), (route.name, answer)


@BY_NAME
def test_odd_bytes_in_a_path_are_refused(route: Hidden, offering: Deployment) -> None:
    for odd in ODD:
        answer = wire.exchange(offering.url, wire.head(route.method, f"{route.path}/{odd}"))
        below = Hidden(route.method, f"{route.template}/x")
        assert own_error(below, answer, 400), answer


@BY_NAME
def test_a_body_above_the_limit_is_refused_before_it_is_read(
    route: Hidden, offering: Deployment, inside: Mapping[str, str]
) -> None:
    given = credential(route, offering.key(TENANT), inside)
    most = offering.stack.settings.max_file_mb * 2**20
    head = wire.head(
        route.method, route.path, Content_Type="application/json", Content_Length=f"{most + 1}",
        **given,
    )  # fmt: skip
    answer = wire.exchange(offering.url, head)
    assert own_error(route, answer, 413), answer


@pytest.mark.parametrize(
    "route",
    [each for each in ROUTES if (each.method, each.template) not in STREAMED],
    ids=lambda route: route.name,
)
@pytest.mark.parametrize(
    "body", [b'{"a": 1, "a": 2}', b"{", b"[" * 5000 + b"]" * 5000], ids=["twice", "cut", "deep"]
)
def test_a_body_that_is_no_strict_json_is_refused(
    body: bytes, route: Hidden, offering: Deployment, inside: Mapping[str, str]
) -> None:
    given = credential(route, offering.key(TENANT), inside)
    head = wire.head(
        route.method, route.path, Content_Type="application/json", Content_Length=f"{len(body)}",
        **given,
    )  # fmt: skip
    answer = wire.exchange(offering.url, head + body)
    assert own_error(route, answer, 400), answer


def test_without_gvisor_every_interface_refuses_builds_and_says_why(offering: Deployment) -> None:
    """Nothing is stored of them. That builds succeed with gVisor is tested where they are."""
    http, e2b = offering.http(TENANT), control(offering, TENANT)
    body = {"name": "tools", "steps": [{"run": "true"}]}
    native = http.post("/v1/templates", json=body)
    theirs = e2b.post("/v3/templates", json={"name": "tools"})
    assert (native.status_code, theirs.status_code) == (409, 409)
    told = (native.json()["detail"], theirs.json()["message"])
    for each in told:
        assert each.startswith("this deployment builds no templates")
        assert "RUNNER_ISOLATION" in each
        assert "runner images build" in each
    assert http.get("/v1/templates").json()["items"] == []


@pytest.mark.parametrize(
    ("route", "own"),
    [
        (Hidden("POST", "/mcp"), {"status": 400}),
        (Hidden("POST", "/v2/sandboxes"), {"code": 400, "message": "it is wrong"}),
        (Hidden("POST", "/process.Process/Start"), {"code": "unknown", "message": "it is wrong"}),
        (Hidden("POST", "/librechat/exec"), {"error": "Bad Request", "details": "it is wrong"}),
    ],
    ids=lambda each: each.template if isinstance(each, Hidden) else "",
)
def test_the_error_of_another_interface_is_noticed(route: Hidden, own: dict[str, object]) -> None:
    """The control of the tests above."""
    others = (Hidden("POST", "/run_code"), Hidden("GET", "/sandboxes"), Hidden("GET", "/health"))
    media_type = "application/problem+json" if route.template == "/mcp" else "application/json"
    told = json.dumps(own).encode()
    assert route.is_own_error(400, media_type, told)
    taken = [each.is_own_error(400, media_type, told) for each in others]
    assert taken.count(True) == {"/mcp": 1, "/v2/sandboxes": 2}.get(route.template, 0)
