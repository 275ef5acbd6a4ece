"""The API's page for people is complete, and nothing in it runs."""

import re
from collections.abc import AsyncIterator
from typing import Literal

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, Field

from runner.api import reference

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an app whose descriptions are hostile."""
    app = FastAPI(title="T", description=HOSTILE, docs_url=None)
    app.include_router(reference.router)

    class Thing(BaseModel):
        """One thing."""

        colour: Literal["green", "red"] = Field(description=HOSTILE)
        parts: list["Thing"] | None

    @app.get("/v1/things/{name}", tags=["things"], summary=HOSTILE)
    async def things(name: str, size: int = 0) -> Thing:
        """Return things."""
        raise NotImplementedError

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://test"
    ) as made:
        yield made


async def test_every_operation_is_on_the_page(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    for word in ("/v1/things/{name}", "GET", "size", "Return things.", "200", "422"):
        assert word in page


async def test_an_answers_body_is_on_the_page(client: httpx.AsyncClient) -> None:
    """The operation links to it, and each field says what it holds."""
    page = (await client.get("/docs")).text
    assert '<td><code>200</code></td><td><a href="#Thing">Thing</a></td>' in page
    assert '<section id="Thing">' in page
    assert "<td><code>colour</code></td><td>`green`, `red`</td>" in page
    held = '<td>list of <a href="#Thing">Thing</a> or null</td>'
    assert f"<td><code>parts</code></td>{held}" in page


async def test_what_a_description_holds_is_text(client: httpx.AsyncClient) -> None:
    """It is escaped, and otherwise the policy would stop it."""
    answer = await client.get("/docs")
    assert "<script" not in answer.text
    assert "<img" not in answer.text
    assert "&lt;script&gt;" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "script-src" not in policy
    assert "default-src 'none'" in policy


async def test_the_page_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    """Its only style is our own, as the policy requires; nothing is inline."""
    page = (await client.get("/docs")).text
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    elsewhere = [each for each in loaded if not each.startswith("#")]
    assert elsewhere == ["/docs/reference.css", "/openapi.json"]
    tags = " ".join(re.findall(r"<[^>]*>", page))
    assert not re.search(r"<style|<script|style=|\son\w+=", tags)
    style = await client.get("/docs/reference.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "url(" not in style.text
    assert "@import" not in style.text
