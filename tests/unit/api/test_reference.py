"""The API's page for people: whole, and nothing in it runs."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from runner.api import reference

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an app whose descriptions are hostile."""
    app = FastAPI(title="T", description=HOSTILE, docs_url=None)
    app.include_router(reference.router)

    @app.get("/v1/things/{name}", tags=["things"], summary=HOSTILE)
    async def things(name: str, size: int = 0) -> None:
        """Return things."""

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://test"
    ) as made:
        yield made


async def test_every_operation_is_on_the_page(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    for word in ("/v1/things/{name}", "GET", "size", "Return things.", "200", "422"):
        assert word in page


async def test_what_a_description_holds_is_text(client: httpx.AsyncClient) -> None:
    """Escaped; and the policy would stop it if it were not."""
    answer = await client.get("/docs")
    assert "<script" not in answer.text
    assert "<img" not in answer.text
    assert "&lt;script&gt;" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "script-src" not in policy
    assert "default-src 'none'" in policy


async def test_the_page_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    """Its one style is ours, as the policy demands; nothing is inline."""
    page = (await client.get("/docs")).text
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert loaded == ["/docs/reference.css", "/openapi.json"]
    tags = " ".join(re.findall(r"<[^>]*>", page))
    assert not re.search(r"<style|<script|style=|\son\w+=", tags)
    style = await client.get("/docs/reference.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "url(" not in style.text
    assert "@import" not in style.text
