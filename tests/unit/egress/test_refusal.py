"""A refusal tells a client its reason in words that an agent can read."""

import http
import json
import re
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from runner.egress.decide import Denied, Target, decide
from runner.egress.policy import Policy, Rule, parse_rule
from runner.egress.refusal import MAX_REASON, told
from runner.egress.requests import permitting
from runner.egress.session import Decision
from runner.egress.upstream import Unreachable
from runner.node.runs.egress import MAX_NOTES, Notes
from runner.words.text import shortened

REPEATED = {408, 420, 413, 425, 429, 500, 502, 503, 504, 522, 524}
"""These repeat: urllib3 as pip configures it, curl --retry, npm, and what HTTP itself says."""


@pytest.mark.parametrize(
    ("why", "status"),
    [
        (Denied("no_rule", "no rule"), 403),
        (Denied("byte_budget", "used up"), 403),
        (Denied("private_address", "private"), 403),
        (Denied("too_many_at_once", "too many"), 429),
        (Unreachable("unreachable", "silent"), 502),
    ],
)
def test_a_status_is_repeated_only_where_that_may_help(why: Denied, status: int) -> None:
    """A decision stays the same. Too many connections, or a fault of the network, may pass."""
    head, _ = told(why)
    assert head.status_code == status
    assert (status in REPEATED) is (why.reason in {"too_many_at_once", "unreachable"})
    assert http.HTTPStatus(status)


@pytest.mark.parametrize("detail", ["short", 'a "quote" and \\', "a\r\nB: c", "é\x00", "x" * 9999])
def test_the_reason_is_in_the_status_line_and_in_a_header(detail: str) -> None:
    """It is one line of plain text, whatever the client asked for."""
    head, page = told(Denied("no_rule", detail))
    reason = bytes(head.reason).decode("ascii")
    assert "no_rule" in reason
    assert len(reason) <= MAX_REASON
    value = dict(head.headers)[b"proxy-status"].decode("ascii")
    form = r'agent-runner-egress; error=[a-z_]+; details="((?:[^"\\]|\\["\\])*)"'
    found = re.fullmatch(form, value)
    assert found
    assert found[1].startswith("no_rule: ")
    assert not re.search(r"[^ -~]", reason + value)
    assert shortened(detail) in page.decode()


def refused(path: str, *rules: Rule, method: str = "GET") -> Denied:
    """Return why these rules refuse a request."""
    with pytest.raises(Denied) as denied:
        permitting(Target("a.test", rules[0].port, rules, ()), method, path)
    return denied.value


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("PUT", "/v1/x", {"host": "a.test", "methods": ["GET"]}),
        ("GET", "/v2/x", {"host": "a.test", "path_prefix": "/v1/"}),
        ("PUT", "/v2/%C3%A9?a", {"host": "a.test", "methods": ["GET"], "path_prefix": "/v1/"}),
        ("PUT", "/x", {"host": "a.test", "port": 8080, "scheme": "http", "methods": ["GET"]}),
    ],
)
def test_a_refusal_names_the_rule_that_would_permit_it(
    method: str, path: str, rule: dict[str, object]
) -> None:
    """It is spelled as a client may write it, and with it, the request is permitted."""
    why = refused(path, parse_rule(rule), method=method)
    wanted = parse_rule(json.loads(why.detail.partition("egress: [")[2].removesuffix("]")))
    permitting(Target("a.test", wanted.port, (wanted,), ()), method, path)


def test_a_long_path_is_told_beyond_any_secret_and_shown_briefly() -> None:
    """Only code that knows the secrets may cut it; the client can still read enough."""
    path = "/" + "a" * 8000
    why = refused(path, parse_rule({"host": "a.test", "path_prefix": "/v1/"}))
    assert why.detail.count(path) == 2
    _, page = told(why)
    assert len(page) < 1000
    assert 'the execution would need egress: [{"host": "a.test", "path_prefix": "/aa' in str(page)


def test_an_encoded_slash_is_told_as_what_it_is() -> None:
    """The path is that of a scoped npm package, below the prefix of its scope with a slash."""
    why = refused("/@types%2fnode", Rule("a.test", 443, path_prefix="/@types/"))
    assert why.reason == "no_rule"
    assert "%2f is no slash to every server" in why.detail
    assert why.detail.endswith('path_prefix: "/@types"')
    permitting(
        Target("a.test", 443, (Rule("a.test", 443, path_prefix="/@types"),), ()),
        "GET", "/@types%2fnode",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("host", "port", "told_of"),
    [
        ("db.test", 443, 'egress: ["db.test"]'),
        ("db.test", 5432, '["tcp://db.test:5432"]'),
        ("127.1.2.3", 9000, "the sandbox itself"),
        ("[::]", 9000, "the sandbox itself"),
        ("sandbox", 9000, "the sandbox itself"),
    ],
)
async def test_a_refused_tunnel_is_told_what_it_needs(host: str, port: int, told_of: str) -> None:
    """It needs a rule, perhaps for another protocol than TLS, or no proxy at all."""

    async def lookup(_: str) -> list[object]:
        return [ip_address("192.0.2.1")]

    with pytest.raises(Denied) as denied:
        await decide(Policy(), "tunnel", host, port, lookup=lookup, trusted=())  # type: ignore[arg-type]
    assert told_of in denied.value.detail


def decision(host: str, reason: str = "no_rule") -> Decision:
    """Return a decision on a request to this host."""
    return Decision(
        session="s", at=datetime.now(UTC), method="connect", host=host, port=443,
        outcome="allowed" if reason == "rule" else "denied",
        address=None, rule=None, reason=reason, detail=f"no rule permits {host}",
    )  # fmt: skip


def test_stderr_tells_of_each_refusal_once_and_of_some_only() -> None:
    """A program that is refused 10,000 times does not flood it."""
    lines: list[str] = []
    notes = Notes(lines.append)
    for _ in range(10_000):
        notes.hear(decision("a.test"))
        notes.hear(decision("b.test", "unreachable"))
        notes.hear(decision("c.test", "rule"))
    assert lines == [
        "[egress] refused: a.test:443: no rule permits a.test (no_rule)",
        "[egress] not reached: b.test:443: no rule permits b.test (unreachable)",
    ]
    for number in range(10_000):
        notes.hear(decision(f"{number}.test"))
    assert len(lines) == MAX_NOTES + 1
    assert "events" in lines[-1]
