"""The console's files are served under a strict policy, and the API works without them."""

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from runner.api import console, problems

SCRIPT = "main-0AB1CD2E.js"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Return a folder as the build leaves it, and a secret beside it."""
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "operator.html").write_text("<!doctype html><title>Operators</title>")
    (folder / SCRIPT).write_text("void 0")
    (folder / "licences.txt").write_text("MIT")
    (folder / ".built").write_text("a hash")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


def client(folder: Path, *, operators: bool = True) -> httpx.AsyncClient:
    """Return a client of an app with the console alone."""
    app = FastAPI()
    problems.install(app)
    app.include_router(console.router(console.assets(folder), operators=operators))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


async def test_nothing_inline_or_foreign_may_run(built: Path) -> None:
    async with client(built) as asking:
        policies = {
            (await asking.get(page)).headers["content-security-policy"]
            for page in ("/console", "/console/operator")
        }
    (policy,) = policies
    rules = {each.split()[0]: set(each.split()[1:]) for each in policy.split("; ")}
    assert rules["default-src"] == {"'none'"}
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == {"'self'"}
    assert rules["img-src"] == {"'self'", "blob:"}
    assert rules["require-trusted-types-for"] == {"'script'"}
    assert rules["trusted-types"] == {"'none'"}
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == {"'none'"}


async def test_browsers_keep_what_never_changes_and_ask_for_the_rest(built: Path) -> None:
    async with client(built) as asking:
        for path, cached in (
            ("/console", "no-cache"),
            ("/console/operator", "no-cache"),
            ("/console/licences.txt", "no-cache"),
            (f"/console/{SCRIPT}", console.FOR_EVER),
        ):
            first = await asking.get(path)
            assert (first.status_code, first.headers["cache-control"]) == (200, cached)
            again = await asking.get(path, headers={"If-None-Match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["content-security-policy"] == console.POLICY


@pytest.mark.parametrize(
    "path", ["../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", ".built", "none.js"]
)
async def test_nothing_else_is_served(built: Path, path: str) -> None:
    async with client(built) as asking:
        answer = await asking.get(f"/console/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_operators_have_a_page_only_where_they_have_routes(built: Path) -> None:
    async with client(built) as asking:
        assert "Operators" in (await asking.get("/console/operator")).text
    async with client(built, operators=False) as asking:
        answer = await asking.get("/console/operator")
        assert (await asking.get("/console")).status_code == 200
    assert answer.status_code == 404
    assert "no operator's routes" in answer.json()["detail"]


async def test_without_a_build_the_answer_and_the_log_say_how_to_make_one(tmp_path: Path) -> None:
    with capture_logs() as logged:
        asking = client(tmp_path / "none")
    async with asking:
        for path in ("/console", "/console/operator", f"/console/{SCRIPT}"):
            answer = await asking.get(path)
            assert answer.status_code == 404
            assert "make console" in answer.json()["detail"]
    assert [each["event"] for each in logged] == ["console_not_built"]
