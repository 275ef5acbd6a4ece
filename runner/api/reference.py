"""`/docs`: the OpenAPI document as a page for people, without any script."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

PAGES = "pages"
STYLE = "reference.css"
POLICY = (
    "default-src 'none'; style-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of the description of a value: text, or the name of a schema on the page."""

    text: str = ""
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A parameter, a field or an answer, for one row of a table."""

    name: str = ""
    words: tuple[Word, ...] = ()
    description: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Schema:
    """The content of a body or of a part of one."""

    name: str
    description: str
    words: tuple[Word, ...]
    fields: tuple[Line, ...]
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One route with one method, as the page shows it."""

    method: str
    path: str
    summary: str
    description: str
    parameters: tuple[Line, ...]
    fields: tuple[Line, ...]
    examples: tuple[str, ...]
    responses: tuple[Line, ...]


@router.get("/docs")
async def reference(request: Request) -> HTMLResponse:
    """Return the page."""
    document = request.app.openapi()
    page = (
        _pages()
        .get_template("reference.html")
        .render(
            title=document["info"]["title"],
            version=document["info"]["version"],
            description=document["info"]["description"].strip(),
            tags=operations(document),
            schemas=schemas(document),
        )
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})


@router.get(f"/docs/{STYLE}")
async def style() -> Response:
    """Return the page's style."""
    text = resources.files(__package__).joinpath(PAGES, STYLE).read_text("utf-8")
    return Response(text, media_type="text/css")


def operations(document: dict[str, Any]) -> dict[str, list[Operation]]:
    """Return the document's operations by their tag."""
    by_tag: defaultdict[str, list[Operation]] = defaultdict(list)
    for path, item in document["paths"].items():
        for method, given in item.items():
            body = _body(document, given)
            described = _schema("", body)
            by_tag[given["tags"][0]].append(
                Operation(
                    method=method.upper(),
                    path=path,
                    summary=given["summary"],
                    description=given["description"],
                    parameters=tuple(
                        Line(
                            each["name"],
                            tuple(words(each["schema"])),
                            each.get("description", ""),
                            where=each["in"],
                        )
                        for each in given.get("parameters", ())
                    ),
                    fields=described.fields,
                    examples=described.examples,
                    responses=tuple(
                        Line(status, tuple(_of_content(each)), each["description"])
                        for status, each in given["responses"].items()
                    ),
                )
            )
    return dict(by_tag)


def schemas(document: dict[str, Any]) -> list[Schema]:
    """Return the schemas of bodies and of their parts, by name."""
    found = document.get("components", {}).get("schemas", {})
    return [_schema(name, schema) for name, schema in sorted(found.items())]


def words(  # noqa: C901 - one case for each kind of schema
    schema: dict[str, Any],
) -> Iterator[Word]:
    """Yield the description of a value, in pieces that make a sentence."""
    match schema:
        case {"$ref": str(name)}:
            yield Word(schema=name.rpartition("/")[2])
        case {"anyOf": list(several)} | {"oneOf": list(several)}:
            for number, each in enumerate(several):
                if number:
                    yield Word(" or ")
                yield from words(each)
        case {"enum": list(values)}:
            yield Word(", ".join(f"`{value}`" for value in values))
        case {"const": value}:
            yield Word(f"`{value}`")
        case {"contentSchema": dict(held)}:
            yield Word("JSON: ")
            yield from words(held)
        case {"type": "array", "items": dict(item)}:
            yield Word("list of ")
            yield from words(item)
        case {"type": "object", "additionalProperties": dict(value)}:
            yield Word("object of ")
            yield from words(value)
        case {"type": str(name), "format": str(form)}:
            yield Word(f"{name} ({form})")
        case {"type": str(name)}:
            yield Word(name)
        case _:
            yield Word("anything")


def _of_content(response: dict[str, Any]) -> Iterator[Word]:
    for media_type, content in response.get("content", {}).items():
        if media_type.endswith("json") and content.get("schema"):
            yield from words(content["schema"])
            continue
        yield Word(media_type)
        for name, held in content.get("itemSchema", {}).get("properties", {}).items():
            yield Word(f"; `{name}`: ")
            yield from words(held)


def _schema(name: str, schema: dict[str, Any]) -> Schema:
    properties = schema.get("properties", {})
    return Schema(
        name,
        schema.get("description", ""),
        () if properties else tuple(words(schema)),
        tuple(
            Line(field, tuple(words(each)), each.get("description", ""))
            for field, each in properties.items()
        ),
        tuple(
            json.dumps(each, indent=2, ensure_ascii=False) for each in schema.get("examples", ())
        ),
    )


@cache
def _pages() -> Environment:
    """Return the templates. Everything is escaped: a description is text, whatever is in it."""
    return Environment(
        loader=PackageLoader(__package__, PAGES), autoescape=True, undefined=StrictUndefined
    )


def _body(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    schema: dict[str, Any] = content.get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return found
    return schema
