"""A request with a wrong field is told why, in `detail` too: many clients show that alone."""

import httpx
import pytest
from fastapi import FastAPI

from agent_runner import ApiError
from runner.api import problems
from runner.api.requests import Submission

OBJECT = "must be text, or an object with one of text, base64 and key"
WRONG: dict[str, tuple[dict[str, object], str]] = {
    "a misspelt field": ({"comand": "x"}, "body.comand: unknown field"),
    "a misspelt limit": (
        {"command": "x", "limits": {"timeout": 3}},
        "body.limits.timeout: unknown field",
    ),
    "code alone": ({"code": "1"}, "body: give language with code, and only with code"),
    "a file as the output shows it": (
        {"command": "x", "files": {"a": {"content": "b", "encoding": "utf-8"}}},
        f"body.files.a: {OBJECT}",
    ),
    "a file of another type": ({"command": "x", "files": {"a": 5}}, f"body.files.a: {OBJECT}"),
}


async def refused(body: object) -> httpx.Response:
    """Send a submission to an app that only reads it."""
    app = FastAPI()
    problems.install(app)

    @app.post("/v1/executions")
    async def submit(body: Submission) -> str:
        return str(body)

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post("/v1/executions", json=body)


@pytest.mark.parametrize("name", WRONG)
async def test_the_detail_gives_the_reason(name: str) -> None:
    body, reason = WRONG[name]
    answer = await refused(body)
    assert answer.status_code == 422
    told = answer.json()
    assert told["detail"] == f"the request is not valid: {reason}"
    [only] = told["errors"]
    assert f"{only['field']}: {only['message']}" == reason


async def test_the_sdk_gives_each_reason_once() -> None:
    """Reasons that the detail lacks, as an older server's does, are added."""
    told = (await refused({"comand": "x", "code": "1", "language": "cobol"})).json()
    shown = str(ApiError(told))
    assert shown.count("body.comand: unknown field") == 1
    older = str(ApiError({**told, "detail": "the request is not valid: body.comand"}))
    assert "\n  body.comand: unknown field" in older
