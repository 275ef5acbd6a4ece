"""Everything that a client may send has a bound, as the OpenAPI document of the whole app says."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel

from runner.api.app import create_app
from runner.api.deps import Dependencies
from runner.api.edge.groups import TRAFFIC, Group, group_of
from runner.api.edge.shares import STREAMS
from runner.api.fields import Strict
from runner.base.settings import Settings

JSON = dict[str, Any]


class _Unopened:
    """Parts of an app for which the document needs only the settings."""

    settings = Settings(node="documented")

    def __getattr__(self, name: str) -> None:
        return None


@pytest.fixture(scope="module")
def document() -> JSON:
    """Return the OpenAPI document."""
    app = create_app(cast("Dependencies", _Unopened()))
    return app.openapi()


def unbounded(  # noqa: C901, PLR0912 - one case for each kind of schema
    schema: JSON, document: JSON, where: str, seen: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yield each place in a request's schema that accepts any amount of something."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in seen:
            target = document["components"]["schemas"][name]
            yield from unbounded(target, document, f"{where}:{name}", seen | {name})
        return
    for union in ("anyOf", "oneOf", "allOf"):
        for each in schema.get(union, ()):
            yield from unbounded(each, document, where, seen)
    if "enum" in schema or "const" in schema or {"anyOf", "oneOf", "allOf"} & schema.keys():
        return
    match schema.get("type"):
        case "string":
            if not (
                "maxLength" in schema
                or "pattern" in schema
                or schema.get("format") in {"uuid", "date-time", "date"}
            ):
                yield f"{where}: a string of any length"
        case "integer" | "number":
            if not (
                {"maximum", "exclusiveMaximum"} & schema.keys()
                and {"minimum", "exclusiveMinimum"} & schema.keys()
            ):
                yield f"{where}: a number of any size"
        case "array":
            if "maxItems" not in schema:
                yield f"{where}: a list of any length"
            yield from unbounded(schema["items"], document, f"{where}[]", seen)
        case "object":
            yield from _of_object(schema, document, where, seen)
        case "boolean" | "null":
            return
        case other:
            yield f"{where}: anything at all ({other})"


def _of_object(schema: JSON, document: JSON, where: str, seen: frozenset[str]) -> Iterator[str]:
    extra = schema.get("additionalProperties")
    if "properties" in schema and extra is not False:
        yield f"{where}: unknown fields are taken"
    if "properties" not in schema:
        if "maxProperties" not in schema:
            yield f"{where}: a map of any size"
        if isinstance(extra, dict):
            yield from unbounded(extra, document, f"{where}{{}}", seen)
        names = schema.get("propertyNames", {})
        if extra is not False and not names and "patternProperties" not in schema:
            yield f"{where}: a map with any keys"
        if names:
            yield from unbounded({"type": "string", **names}, document, f"{where} keys", seen)
        for each in schema.get("patternProperties", {}).values():
            yield from unbounded(each, document, f"{where}{{}}", seen)
    for name, field in schema.get("properties", {}).items():
        yield from unbounded(field, document, f"{where}.{name}", seen)


def requests(document: JSON) -> Iterator[tuple[str, JSON]]:
    """Yield every parameter and body of every operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for each in operation.get("parameters", ()):
                yield f"{method.upper()} {path} {each['in']} {each['name']}", each["schema"]
            for kind, each in operation.get("requestBody", {}).get("content", {}).items():
                if kind == "application/json":
                    yield f"{method.upper()} {path} body", each["schema"]


def test_every_field_of_every_request_has_a_bound(document: JSON) -> None:
    """Strings have a length or pattern, lists and maps a size, numbers a range."""
    found = list(requests(document))
    assert len(found) >= 30
    assert [fault for where, schema in found for fault in unbounded(schema, document, where)] == []


def test_every_body_is_of_the_strict_base() -> None:
    """The base forbids coercion and unknown fields, and no subclass permits them again."""
    bodies = set(subclasses(Strict))
    assert len(bodies) >= 6
    for each in bodies:
        assert (each.model_config.get("extra"), each.model_config.get("strict")) == (
            "forbid",
            True,
        ), each


def test_every_route_takes_its_body_by_the_strict_base(document: JSON) -> None:
    """Every body in the document has the name of one of the strict models."""
    strict = {each.__name__ for each in subclasses(Strict)}
    named = {
        schema["$ref"].rpartition("/")[2]
        for where, schema in requests(document)
        if where.endswith(" body")
    }
    assert named <= strict


def subclasses(of: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield every model that inherits from another one."""
    for each in of.__subclasses__():
        yield each
        yield from subclasses(each)


class Lax(BaseModel):
    """Everything that the search must find."""

    text: str
    number: int
    items: list[str]
    table: dict[str, int]
    anything: Any = None


def test_a_lax_request_is_found_out() -> None:
    """Shown able to fail."""
    app = FastAPI()

    @app.post("/{name}")
    def take(name: str, body: Lax, page: int = 0) -> None:
        """Accept anything."""

    document = app.openapi()
    faults = [
        fault
        for where, schema in requests(document)
        for fault in unbounded(schema, document, where)
    ]
    assert [fault.partition(": ")[2] for fault in faults] == [
        "a string of any length",
        "a number of any size",
        "unknown fields are taken",
        "a string of any length",
        "a number of any size",
        "a list of any length",
        "a string of any length",
        "a map of any size",
        "a number of any size",
        "a map with any keys",
        "anything at all (None)",
    ]


def test_every_event_stream_takes_a_stream_of_its_callers_share(document: JSON) -> None:
    streams = {
        path
        for path, methods in document["paths"].items()
        for operation in methods.values()
        for answer in operation.get("responses", {}).values()
        if EventSourceResponse.media_type in answer.get("content", {})
    }
    assert streams and streams - STREAMS == set()
    assert TRAFFIC in STREAMS


SANDBOX = "/v1/sandboxes/{sandbox_id}/"
NOT_ANSWERED_IN_SANDBOXES = {
    "pause", "resume", "events", "snapshots", "fork", "ports", "receipt", "explanation",
}  # fmt: skip


def test_what_a_sandbox_answers_counts_as_its_use(document: JSON) -> None:
    """Signed addresses have a group of their own, and ending a process is never held up."""
    groups = {
        (method.upper(), path.removeprefix(SANDBOX)): group_of(method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith(SANDBOX)
    }
    assert len(groups) > 30
    others = {
        route: group
        for route, group in groups.items()
        if group is not Group.USE and route[1].split("/")[0] not in NOT_ANSWERED_IN_SANDBOXES
    }
    assert others == {
        ("DELETE", "processes/{process}"): Group.STOP,
        ("POST", "files/signed"): Group.WRITE,
        ("GET", "files/signed/content"): Group.SIGNED,
        ("PUT", "files/signed/content"): Group.SIGNED,
    }
