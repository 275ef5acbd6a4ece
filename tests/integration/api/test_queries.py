"""Query parameters: a filter that a route does not have is refused, not ignored."""

from typing import Any

import httpx
import pytest

from tests.support.deployment import Deployment
from tests.support.routes import BY_ADDRESS, UNKNOWN_ID, operations

ADDED_TO = {"GET /v1/login/oidc/callback"}
REFUSED = "urn:runner:problem:invalid-request"


def test_every_route_refuses_what_it_does_not_know(
    shared: Deployment, document: dict[str, Any]
) -> None:
    """The refusal names it, and the parameters of the route. This includes routes for probes.

    A signed address is left out: its query says who calls, so a wrong one is answered 401. So is
    the way back from an identity provider, which adds what it likes.
    """
    tenant, operator = shared.http("queries"), shared.operator()
    documented = [each for each in operations(document) if each.route not in BY_ADDRESS | ADDED_TO]
    paths = [*documented, *map(_plain, ("/docs", "/docs/reference.css", "/openapi.json"))]
    for each in paths:
        client = operator if each.path.startswith("/operator/") else tenant
        answer = each.send(client, query={"acton": "x"})
        assert answer.status_code == 422, (each.route, answer.text)
        if each.method == "HEAD":
            continue
        problem = answer.json()
        assert problem["type"] == REFUSED, each.route
        [wrong] = [e for e in problem["errors"] if e["field"] == "query.acton"]
        known = [p["name"] for p in each.described.get("parameters", ()) if p["in"] == "query"]
        listed = f"known here: {', '.join(sorted(known))}" if known else "this route has none"
        assert wrong["message"] == f"unknown query parameter; {listed}", each.route
    assert len(paths) > 60


def _plain(path: str) -> Any:
    return operations({"paths": {path: {"get": {}}}})[0]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("State=failed", "State"),
        ("state=failed&stat=x", "stat"),
        ("%73tate=failed&%73tat=x", "stat"),
        ("=x", ""),
        ("limit=1&limit=2", "limit"),
    ],
)
def test_a_filter_with_a_typing_error_is_no_filter_for_everything(
    query: str, field: str, shared: Deployment
) -> None:
    answer = shared.http("typing").get(f"/v1/executions?{query}")
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == [f"query.{field}"]


def test_a_stranger_is_not_told_what_a_route_knows(shared: Deployment) -> None:
    assert httpx.get(f"{shared.url}/v1/executions?x=1").status_code == 401


def test_executions_are_found_by_their_metadata(shared: Deployment) -> None:
    """They have all requested labels, across pages, and belong to the tenant."""
    client = shared.client("labelled")
    made = {
        name: client.submit(command=["true"], size="nano", metadata=labels).id
        for name, labels in {
            "one": {"agent": "a=b", "run": "1"},
            "two": {"agent": "a=b", "run": "2"},
            "other": {"agent": "c"},
            "none": {},
        }.items()
    }

    def found(**metadata: str) -> list[str]:
        seen: list[str] = []
        cursor = None
        while True:
            page, cursor = client.list(metadata=metadata, limit=1, cursor=cursor)
            seen += [each.id for each in page]
            if cursor is None:
                return seen

    assert found(agent="a=b") == [made["two"], made["one"]]
    assert found(agent="a=b", run="1") == [made["one"]]
    assert found(agent="c", run="1") == []
    assert found(agent="a") == []
    assert shared.client("another").list(metadata={"agent": "c"})[0] == []
    assert client.list(metadata={"agent": "c"})[0][0].metadata == {"agent": "c"}


@pytest.mark.parametrize("given", ["x", "=x", "a b=x", f"a={'x' * 513}", "a=\0"])
def test_what_is_no_label_is_refused(given: str, shared: Deployment) -> None:
    answer = shared.http("typing").get("/v1/executions", params={"metadata": given})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].startswith("query.metadata")


def test_a_label_cannot_have_two_values(shared: Deployment) -> None:
    answer = shared.http("typing").get("/v1/executions", params={"metadata": ["a=1", "a=2"]})
    assert answer.status_code == 422
    assert "two values" in answer.json()["errors"][0]["message"]


def test_a_request_without_a_route_is_told_that_first(shared: Deployment) -> None:
    client = shared.http("typing")
    assert client.get(f"/v1/nothing/{UNKNOWN_ID}?x=1").status_code == 404
    assert client.delete("/v1/executions?x=1").status_code == 405
