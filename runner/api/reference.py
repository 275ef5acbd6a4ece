"""`/docs`: the API for people, from its OpenAPI document. One page without any script."""

import json
from collections import defaultdict
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
class Line:
    """A parameter, a field or an answer, for one row of a table."""

    name: str = ""
    description: str = ""
    status: str = ""
    where: str = ""


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
            by_tag[given["tags"][0]].append(
                Operation(
                    method=method.upper(),
                    path=path,
                    summary=given["summary"],
                    description=given["description"],
                    parameters=tuple(
                        Line(each["name"], each.get("description", ""), where=each["in"])
                        for each in given.get("parameters", ())
                    ),
                    fields=tuple(
                        Line(name, each.get("description", ""))
                        for name, each in body.get("properties", {}).items()
                    ),
                    examples=tuple(
                        json.dumps(each, indent=2, ensure_ascii=False)
                        for each in body.get("examples", ())
                    ),
                    responses=tuple(
                        Line(status=status, description=each["description"])
                        for status, each in given["responses"].items()
                    ),
                )
            )
    return dict(by_tag)


@cache
def _pages() -> Environment:
    """Return the templates. Everything is escaped: a description is text, whatever it holds."""
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
