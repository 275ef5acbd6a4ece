"""The proxy sends on some of a request's fields."""

import h11
import pytest

from runner.egress.decide import Target
from runner.egress.policy import Inject, Rule
from runner.egress.requests import rewritten

HOST = "api.example.test"


def sent(rule: Rule, *fields: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    """Return the fields that the server receives, with names in lower case."""
    request = h11.Request(method="GET", target="/", headers=[("Host", HOST), *fields])
    target = Target(HOST, 443, (rule,), ())
    secrets = {"token": "the-secret"}
    return list(rewritten(request, target, "/", rule, secrets, is_looked_into=True).headers)


@pytest.mark.parametrize("name", ["Transfer_Encoding", "Content_Length", "Upgrade", "Proxy_Auth"])
def test_a_field_that_frames_the_message_has_no_second_spelling(name: str) -> None:
    """CGI reads an underscore as a hyphen (RFC 3875 §4.1.18)."""
    assert name.lower().encode() not in dict(sent(Rule(HOST, 443), (name, "1")))


@pytest.mark.parametrize("name", ["X_API_Key", "x-api-key", "X-Api_Key"])
def test_the_injected_field_is_the_only_one_of_its_name(name: str) -> None:
    """This holds whatever the program sends, in either spelling."""
    rule = Rule(HOST, 443, inject=Inject("X-Api-Key", "token"))
    found = [value for field, value in sent(rule, (name, "mine")) if b"key" in field]
    assert found == [b"the-secret"]


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X_HTTP_Method_Override"])
def test_no_field_names_another_method(name: str) -> None:
    """This holds if a rule names methods; the control is a rule that names none."""
    assert name.lower().encode() in dict(sent(Rule(HOST, 443), (name, "DELETE")))
    bound = Rule(HOST, 443, methods=("GET",))
    assert name.lower().encode() not in dict(sent(bound, (name, "DELETE")))


@pytest.mark.parametrize("name", ["X-Original-URL", "X_Rewrite_URL"])
def test_no_field_names_another_path(name: str) -> None:
    """This holds if a rule names a path; the control is a rule that names none."""
    assert name.lower().encode() in dict(sent(Rule(HOST, 443), (name, "/closed")))
    bound = Rule(HOST, 443, path_prefix="/")
    assert name.lower().encode() not in dict(sent(bound, (name, "/closed")))
