"""A rule has a text, covers hosts, and is bounded by the operator's ceiling."""

from pathlib import Path
from typing import Any

import pytest

from runner.egress.policy import (
    Policy,
    Rule,
    load_ceiling,
    parse_rule,
    policy_from_json,
    policy_to_json,
    rule_from_json,
    rule_to_json,
    within,
)
from runner.words.errors import Invalid, SetupError


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ("example.com", Rule("example.com", 443)),
        ("EXAMPLE.com.", Rule("example.com", 443)),
        ("example.com:8443", Rule("example.com", 8443)),
        ("*.example.com", Rule("*.example.com", 443)),
        ("http://example.com", Rule("example.com", 80, "http")),
        ("tcp://db.example.com:5432", Rule("db.example.com", 5432, "tcp")),
        ("bücher.example", Rule("xn--bcher-kva.example", 443)),
        ("192.0.2.7", Rule("192.0.2.7", 443)),
        ("[2001:DB8::0:1]:8443", Rule("[2001:db8::1]", 8443)),
        (
            {"host": "a.example", "methods": ["PUT", "GET", "GET"], "path_prefix": "/v1/"},
            Rule("a.example", 443, "https", ("GET", "PUT"), "/v1/"),
        ),
    ],
)
def test_a_rule_has_one_full_form(written: Any, rule: Rule) -> None:
    """The form does not depend on how short the rule was written, and it survives storage."""
    assert parse_rule(written) == rule
    assert rule_from_json(rule_to_json(rule)) == rule


@pytest.mark.parametrize(
    "written",
    [
        "", " ", "*", "*.", "*.com", "a*.example", "*.*.example", "*.192.0.2.1", "exa mple.com",
        "user@example.com", "example.com/path", "ftp://example.com", "tcp://example.com",
        "example.com:0", "example.com:65536", "example.com:x", "a..example", "-a.example",
        "0x7f.1", "2130706433", "127.1", "0177.0.0.1", "[::1%eth0]", "::1", "a\x00.example",
        "a%00.example", "x" * 64 + ".example",
        {"host": "a.example", "extra": 1}, {"host": "a.example", "methods": ["get"]},
        {"host": "a.example", "path_prefix": "v1"},
        {"host": "a.example", "path_prefix": "/a%2fb"},
        {"host": "a.example", "scheme": "tcp", "port": 1, "methods": ["GET"]},
        {"host": "a.example", "scheme": "http", "inject": {"header": "X", "secret": "s"}},
        {"host": "a.example", "inject": {"header": "Host", "secret": "s"}},
        {"host": "a.example", "inject": {"header": "X", "secret": "s", "prefix": "a\r\nB: c"}},
    ],
)  # fmt: skip
def test_what_means_nothing_certain_is_no_rule(written: Any) -> None:
    """It is refused when it is written, not when it is used."""
    with pytest.raises(Invalid, match="not an egress rule"):
        parse_rule(written)


@pytest.mark.parametrize(
    ("rule", "host", "port", "matches"),
    [
        ("example.com", "example.com", 443, True),
        ("example.com", "example.com", 80, False),
        ("example.com", "www.example.com", 443, False),
        ("example.com", "evilexample.com", 443, False),
        ("example.com", "example.com.evil", 443, False),
        ("*.example.com", "www.example.com", 443, True),
        ("*.example.com", "a.b.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "evilexample.com", 443, False),
        ("*.example.com", "www.example.com.evil", 443, False),
        ("192.0.2.7", "192.0.2.7", 443, True),
    ],
)
def test_hosts_match_whole_or_by_whole_labels(
    rule: str, host: str, port: int, matches: bool
) -> None:
    """A suffix begins at a dot, and a name is not below itself."""
    assert parse_rule(rule).matches(host, port) is matches


def test_a_rule_must_stay_below_the_ceiling() -> None:
    """Host, port, scheme, methods and path must each be as narrow or narrower."""
    most = Policy(
        rules=(
            parse_rule({"host": "*.example.com", "methods": ["GET"], "path_prefix": "/v1/"}),
            Rule("*", 8443),
        )
    )

    def below(**fields: Any) -> bool:
        base = {"host": "a.example.com", "methods": ["GET"], "path_prefix": "/v1/x"}
        return within(parse_rule({**base, **fields}), most)

    assert below()
    assert below(host="*.b.example.com")
    assert below(host="*.example.com")
    assert not below(host="example.com")
    assert not below(methods=[])
    assert not below(methods=["GET", "PUT"])
    assert not below(path_prefix="/v2")
    assert not below(path_prefix="")
    assert not below(scheme="http")
    assert not below(port=444)
    assert within(Rule("anything.example", 8443), most)
    assert within(Rule("*.anything.example", 8443), most)
    assert not within(Rule("192.0.2.7", 8443), most), "an address only where one is named"


def test_no_ceiling_and_an_empty_one_permit_nothing(tmp_path: Path) -> None:
    """If nothing is permitted, everything is refused (CVE-2025-66479)."""
    anything = Rule("example.com", 443)
    assert not within(anything, load_ceiling(tmp_path))
    (tmp_path / "egress").mkdir()
    (tmp_path / "egress" / "ceiling.toml").write_text("")
    assert not within(anything, load_ceiling(tmp_path))


@pytest.mark.parametrize(
    "text", ["allow = 1", "[[allow]]\nhost = 'a b'", "[[allow]]\nwho = 'x'", "max_bytes = -1", "["]
)
def test_a_ceiling_that_cannot_be_understood_stops_the_start(tmp_path: Path, text: str) -> None:
    """The process does not guess that everything, or nothing, is permitted."""
    (tmp_path / "egress").mkdir()
    (tmp_path / "egress" / "ceiling.toml").write_text(text)
    with pytest.raises(SetupError, match="not a ceiling"):
        load_ceiling(tmp_path)


def test_a_policys_hash_is_of_what_it_permits() -> None:
    """The same rules have the same hash, and other rules another one."""
    policy = Policy(rules=(parse_rule("example.com"),))
    assert policy_from_json(policy_to_json(policy)) == policy
    assert policy.hash() == Policy(rules=(Rule("example.com", 443),)).hash()
    assert policy.hash() != Policy(rules=policy.rules, max_bytes=1).hash()
