"""Errors as E2B's clients read them, and how their requests are counted."""

import json
from http import HTTPStatus
from typing import Any

import pytest
from fastapi import Request
from fastapi.responses import JSONResponse

from runner.api.e2b.network import INTERNET, order
from runner.api.e2b.requests import NetworkRules
from runner.api.edge.groups import Group, group_of
from runner.api.problems import of
from runner.words.errors import (
    Conflict,
    Gone,
    Invalid,
    NodeAway,
    NotAuthenticated,
    NotFound,
    QuotaExceeded,
    RunnerError,
)


def answered(path: str, error: RunnerError, **headers: str) -> tuple[JSONResponse, Any]:
    """Return the answer to an error of a request for this path, and its body."""
    raw = [
        (name.replace("_", "-").lower().encode(), text.encode()) for name, text in headers.items()
    ]
    answer = of(Request({"type": "http", "path": path, "headers": raw}), error)
    return answer, json.loads(bytes(answer.body))


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (NotAuthenticated("x"), 401, "unauthenticated"),
        (NotFound("x"), 404, "not_found"),
        (Conflict("x"), 409, "failed_precondition"),
        (Invalid("x", "field"), 400, "invalid_argument"),
        (NodeAway("x"), 503, "unavailable"),
    ],
)
def test_a_failure_has_a_status_that_their_clients_know(
    error: RunnerError, status: int, word: str
) -> None:
    """It is a number on the control plane, and a word for calls in the Connect protocol."""
    for path, code in (("/sandboxes", status), ("/process.Process/Start", word)):
        answer, body = answered(path, error)
        assert answer.status_code == status
        assert body == {"code": code, "message": "x"}


def test_our_own_routes_keep_our_shape() -> None:
    answer, body = answered("/v1/sandboxes", NotFound("x"))
    assert answer.media_type == "application/problem+json"
    assert body["detail"] == "x"


def test_a_sandbox_that_ended_is_not_there() -> None:
    """To the control plane it is unknown; inside, the answer is what their proxy says."""
    ended = Gone("it has ended", "expired")
    answer, body = answered("/sandboxes/x", ended)
    assert (answer.status_code, body["code"]) == (404, 404)
    answer, body = answered("/process.Process/List", ended, E2b_Sandbox_Id="id")
    assert answer.status_code == HTTPStatus.BAD_GATEWAY
    assert body == {"sandboxId": "id", "message": "The sandbox was not found", "code": 502}


def test_a_quota_is_not_tried_again_unless_time_frees_some_of_it() -> None:
    """Their clients repeat what is answered 429, unless they are told not to."""
    for waits, repeated in ((None, "false"), (30, None)):
        error = QuotaExceeded(
            "x", quota="sandboxes", limit=1, used=1, frees_at=None, retry_after_s=waits
        )
        answer, body = answered("/v2/sandboxes", error)
        assert (answer.status_code, body["code"]) == (429, 429)
        assert answer.headers.get("should-retry") == repeated


@pytest.mark.parametrize(
    ("request_line", "group"),
    [
        ("POST /v2/sandboxes", Group.SUBMIT),
        ("POST /sandboxes", Group.SUBMIT),
        ("POST /sandboxes/{sandbox_id}/fork", Group.SUBMIT),
        ("DELETE /sandboxes/{sandbox_id}", Group.STOP),
        ("GET /v2/sandboxes", Group.READ),
        ("POST /sandboxes/{sandbox_id}/timeout", Group.WRITE),
        ("POST /process.Process/Start", Group.USE),
        ("GET /files", Group.USE),
        ("POST /execute", Group.USE),
    ],
)
def test_their_requests_are_counted_as_ours_are(request_line: str, group: Group) -> None:
    method, _, template = request_line.partition(" ")
    assert group_of(method, template) is group


RULES = {"allowOut": ["a.example"], "denyOut": ["192.0.2.1"]}


@pytest.mark.parametrize(
    ("asked", "internet", "opened", "entries", "policy"),
    [
        ({}, None, False, (), None),
        ({}, None, True, (), INTERNET),
        ({}, False, True, (), None),
        (RULES, None, False, ("a.example",), None),
        (RULES, False, True, ("a.example",), None),
        ({"allowOut": ["192.0.2.1/32", "2001:db8::1"]}, None, False,
         ("192.0.2.1", "2001:db8::1"), None),
        ({"allowOut": ["0.0.0.0/0"], "denyOut": ["0.0.0.0/0"]}, None, True, (), INTERNET),
        ({"allowOut": ["b.example"], "denyOut": ["0.0.0.0/0"]}, True, True, ("b.example",), None),
    ],
)  # fmt: skip
def test_network_rules_become_egress_rules(
    asked: dict[str, Any],
    internet: bool | None,
    opened: bool,
    entries: tuple[str, ...],
    policy: str | None,
) -> None:
    """Nothing is permitted that nobody named; what is allowed comes before what is denied."""
    made = order(NetworkRules.model_validate(asked), internet=internet, opened=opened)
    assert (made.entries, made.policy) == (entries, policy)


@pytest.mark.parametrize(
    ("asked", "internet", "opened"),
    [
        ({}, True, False),
        ({"allowOut": ["0.0.0.0/0"]}, None, False),
        ({"allowOut": ["192.0.2.0/24"]}, None, False),
        ({"allowOut": ["a.example/x"]}, None, False),
        ({"denyOut": ["a.example"]}, None, False),
        (RULES, None, True),
    ],
)
def test_what_rules_cannot_express_is_refused(
    asked: dict[str, Any],
    internet: bool | None,
    opened: bool,
) -> None:
    with pytest.raises(Invalid):
        order(NetworkRules.model_validate(asked), internet=internet, opened=opened)
