"""E2B's routes keep the same rules as all others, although our document leaves them out."""

from fastapi.dependencies.models import Dependant
from starlette.responses import StreamingResponse

from runner.api.deps import Allow
from runner.api.e2b.daemon import connect
from runner.api.e2b.inside import inside
from runner.api.e2b.paths import Part, part_of
from runner.api.edge.bounds import READ_ONCE
from runner.api.edge.groups import Group, group_of
from runner.api.edge.routing import NO_ROUTE, TEMPLATE, is_protected
from runner.api.edge.shares import STREAMS
from tests.architecture.test_validation import unbounded
from tests.support.e2b_routes import all_routes, document, supported
from tests.support.routes import operations


def calls(dependant: Dependant) -> list[object]:
    """Return everything that a route depends on."""
    found: list[object] = [dependant.call]
    for each in dependant.dependencies:
        found += calls(each)
    return found


def test_every_route_needs_a_permission() -> None:
    """Outside, one of a key; inside, the sandbox of a token, which needs one as well."""
    routes = supported()
    assert len(routes) > 40
    for each in routes:
        needed = calls(each.route.dependant)
        assert any(isinstance(call, Allow) for call in needed), each.name
        assert (inside in needed) is (each.part is Part.INSIDE), each.name


def test_every_route_is_protected_and_of_one_part() -> None:
    """So a stranger is refused before anything of the request is read."""
    for each in all_routes():
        assert each.part is not None, each.name
        assert is_protected({"path": each.route.path, TEMPLATE: NO_ROUTE}), each.name


def test_every_stream_takes_a_stream_of_its_callers_share() -> None:
    """A download is none: it ends with its file."""
    calls_that_stream = {
        each.route.path
        for each in supported()
        if any(connect.STREAM in of.get("content", {}) for of in each.route.responses.values())
    }
    others = {
        each.route.path
        for each in supported()
        if isinstance(each.route.response_class, type)
        and issubclass(each.route.response_class, StreamingResponse)
        and each.method != "GET"
    }
    assert calls_that_stream and others
    assert (calls_that_stream | others) - STREAMS == set()


def test_what_a_sandbox_answers_counts_as_its_use() -> None:
    for each in supported():
        if each.part is Part.INSIDE or each.route.path.endswith("/metrics"):
            assert group_of(each.method, each.route.path) is Group.USE, each.name


def test_no_path_of_ours_is_taken_for_theirs() -> None:
    for path in (
        "/v1/sandboxes", "/v1/files", "/operator/v1/tenants", "/healthz", "/readyz", "/metrics",
        "/docs", "/openapi.json", "/mcp", "/", "/sandboxesx", "/v2", "/v4/sandboxes", "/filesx",
        "/x/files", "/v2/sandboxes%0A".replace("%0A", "x"),
    ):  # fmt: skip
        assert part_of(path) is None, path


def test_every_field_has_a_bound() -> None:
    """As in our own document: no text, number or list of any size.

    Inside a sandbox, messages of protocol buffers have bounds that OpenAPI cannot express.
    """
    theirs = document()
    found: list[str] = []
    for each in operations(theirs):
        if part_of(each.path) is Part.INSIDE:
            continue
        for parameter in each.described.get("parameters", ()):
            where = f"{each.route} {parameter['name']}"
            found += unbounded(parameter["schema"], theirs, where)
        for content in each.described.get("requestBody", {}).get("content", {}).values():
            found += unbounded(content["schema"], theirs, each.route)
    assert found == []


def test_every_header_is_read_once() -> None:
    """As our own: of two, some readers take the first, others the last."""
    read = {
        parameter["name"].lower().encode()
        for each in operations(document())
        for parameter in each.described.get("parameters", ())
        if parameter["in"] == "header"
    }
    assert read - READ_ONCE == set()
