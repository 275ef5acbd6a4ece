"""A path below a prefix stays below it for every kind of server."""

import posixpath
import re
import unicodedata
from collections.abc import Callable
from urllib.parse import quote, unquote_to_bytes

import pytest

from runner.egress import requests
from runner.egress.decide import Denied, Target
from runner.egress.paths import is_ambiguous
from runner.egress.policy import Rule
from runner.egress.requests import permitting

PREFIX = "/open/"

TRICKS = {
    "dots": "/open/../closed",
    "dots at the end": "/open/..",
    "many dots": "/open/a/b/../../../closed",
    "one dot between": "/open/./../closed",
    "double slash": "/open//../closed",
    "encoded dots": "/open/%2e%2e/closed",
    "one encoded dot": "/open/.%2E/closed",
    "encoded slash": "/open/..%2fclosed",
    "everything encoded": "/open/%2e%2e%2fclosed",
    "encoded slash before": "/open/x%2f..%2f..%2fclosed",
    "encoded twice": "/open/%252e%252e/closed",
    "encoded twice, slash": "/open/..%252fclosed",
    "encoded by halves": "/open/%%32%65%%32%65/closed",
    "IIS": "/open/%u002e%u002e/closed",
    "IIS, slash": "/open/..%u2215closed",
    "IIS, full-width": "/open/%uff0e%uff0e/closed",
    "overlong in two bytes": "/open/%c0%ae%c0%ae/closed",
    "overlong slash": "/open/..%c0%afclosed",
    "overlong in three bytes": "/open/%e0%80%ae%e0%80%ae/closed",
    "overlong in four bytes": "/open/%f0%80%80%ae%f0%80%80%ae/closed",
    "overlong, bad continuation": "/open/..%c0%2fclosed",
    "overlong, other lead": "/open/..%c1%9cclosed",
    "backslash": "/open/..\\closed",
    "encoded backslash": "/open/..%5cclosed",
    "both by backslash": "/open\\..\\closed",
    "parameter": "/open/..;/closed",
    "parameter with a value": "/open/..;a=b/closed",
    "encoded parameter": "/open/..%3b/closed",
    "parameter on an encoded dot": "/open/%2e%2e;x/closed",
    "full-width dots": "/open/%EF%BC%8E%EF%BC%8E/closed",
    "full-width slash": "/open/..%EF%BC%8Fclosed",
    "two dot leader": "/open/%E2%80%A5/closed",
    "division slash": "/open/..%E2%88%95closed",
    "set minus": "/open/..%E2%88%96closed",
    "zero width": "/open/.%E2%80%8B./closed",
    "low bytes": "/open/%C4%AE%C4%AE/closed",
    "low bytes, slash": "/open/..%C4%AFclosed",
    "spaces at the end": "/open/..%20/closed",
    "plus at the end": "/open/..+/closed",
    "three dots": "/open/.../closed",
    "NUL": "/open/..%00/closed",
    "newline": "/open/..%0a/closed",
    "tab inside": "/open/.%09./closed",
}

REAL = {
    "an npm package": ("/left-pad", "/"),
    "a scoped npm package": ("/@types%2fnode", "/"),
    "a scoped npm package below its scope": ("/@types%2Fnode", "/@types"),
    "a scoped tarball": ("/@types/node/-/node-20.1.0.tgz", "/@types/"),
    "a wheel": ("/packages/ab/six-1.16.0-py2.py3-none-any.whl", "/packages/"),
    "a local version": ("/packages/torch-2.1%2Bcpu.whl", "/packages/"),
    "a plus": ("/c++/libstdc++.so", "/c++/"),
    "a crate": ("/crates/serde/1.0.0/download", "/crates/"),
    "a Go module": ("/github.com/!azure/sdk/@v/v1.2.3.zip", "/github.com/"),
    "a Maven artifact": ("/maven2/org/a/1.0/a-1.0.jar", "/maven2/"),
    "a project by its path": ("/api/v4/projects/group%2Fname/issues", "/api/v4/projects/"),
    "an image's digest": ("/v2/library/python/manifests/sha256:ab12", "/v2/"),
    "a file that begins with a dot": ("/repo/.git/HEAD", "/repo/"),
    "a file with two dots": ("/files/a..b", "/files/"),
    "letters of other scripts": ("/files/" + quote("ąį 売上　集計.csv"), "/files/"),
    "matrix parameters": ("/map/tile;x=1;y=2/data", "/map/"),
    "an address inside": ("/web/2020/https://example.com/a", "/web/"),
}


def is_below(path: str, prefix: str) -> bool:
    """Return whether a rule with this prefix permits the path."""
    rule = Rule("example.test", 443, path_prefix=prefix)
    try:
        permitting(Target("example.test", 443, (rule,), ()), "GET", path + "?a=../b")
    except Denied:
        return False
    return True


def lenient(path: str) -> str:
    """Decode like servers that accept overlong forms and other charsets for what they resemble."""
    raw = unquote_to_bytes(path)
    for lead, size in ((0xC0, 2), (0xC1, 2), (0xE0, 3), (0xF0, 4)):
        for at in range(len(raw) - size, -1, -1):
            if raw[at] == lead:
                value = lead & (0xFF >> (size + 1))
                for byte in raw[at + 1 : at + size]:
                    value = value << 6 | byte & 0x3F
                if value < 0x80:
                    raw = raw[:at] + bytes([value]) + raw[at + size :]
    return raw.decode("utf-8", "replace")


def iis(path: str) -> str:
    """Decode `%uXXXX` as IIS does."""
    return re.sub(r"%u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), path)


def best_fit(path: str) -> str:
    """Fold to ASCII as Windows does."""
    return unicodedata.normalize("NFKC", path).translate({0x2215: "/", 0x2216: "\\"})


READINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda path: path,
    "decoded": lenient,
    "decoded twice": lambda path: lenient(lenient(path)),
    "parameters dropped": lambda path: re.sub(r";[^/]*", "", lenient(path)),
    "parameters dropped, then decoded": lambda path: lenient(re.sub(r";[^/]*", "", path)),
    "backslashes are slashes": lambda path: lenient(path).replace("\\", "/"),
    "IIS": lambda path: best_fit(lenient(iis(path))).replace("\\", "/"),
    "compatibility decomposed": lambda path: unicodedata.normalize("NFKC", lenient(path)),
    "without what has no width": lambda path: lenient(path).replace("\u200b", ""),
    "without controls": lambda path: re.sub(r"[\x00-\x1f]", "", lenient(path)),
    "low bytes": lambda path: "".join(chr(ord(each) & 0xFF) for each in lenient(path)),
    "Windows": lambda path: re.sub(r"(?<=/)(\.\.?)[. +]+(?=/|$)", r"\1", lenient(path)),
}


def lands(reading: Callable[[str], str], path: str) -> str:
    """Return where a server with this reading of a path ends up."""
    return posixpath.normpath("/" + reading(path).lstrip("/"))


@pytest.mark.parametrize("trick", TRICKS)
def test_a_path_that_some_server_reads_as_another_is_refused(trick: str) -> None:
    """The control: without the check, one of the servers would leave the prefix."""
    path = TRICKS[trick]
    led_out = [
        name for name, reading in READINGS.items() if not lands(reading, path).startswith("/open/")
    ]
    assert led_out or trick in {"encoded by halves", "three dots"}, "no trick at all"
    assert not is_below(path, PREFIX)


@pytest.mark.parametrize("name", REAL)
def test_real_paths_are_permitted(name: str) -> None:
    """No reading leads them elsewhere."""
    path, prefix = REAL[name]
    assert is_below(path, prefix)
    for reading in READINGS.values():
        assert lands(reading, path).startswith(prefix.rstrip("/"))


def test_every_octet_in_every_place_is_refused_or_harmless() -> None:
    """Every reading of a permitted path stays below the prefix."""
    for octet in range(256):
        for form in ("/open/..%{0:02x}/closed", "/open/.%{0:02x}./closed", "/open/..%{0:02x}closed",
                     "/open/%{0:02x}../closed", "/open/x%{0:02x}/../closed"):  # fmt: skip
            path = form.format(octet)
            if is_below(path, PREFIX):
                for name, reading in READINGS.items():
                    assert lands(reading, path).startswith("/open/"), (path, name)


def test_what_does_not_begin_with_the_prefix_is_not_below_it() -> None:
    """This holds even if the path leads there once decoded: the server may not decode it."""
    assert not is_below("/%6fpen/x", PREFIX)
    assert not is_below("/open", PREFIX)
    assert not is_below("//open/x", PREFIX)
    assert not is_below("/@types%2fnode", "/@types/")


def test_a_refusal_says_what_is_wrong_with_the_path() -> None:
    """Only for a path that another spelling would permit, not for one that none would."""
    rules = (Rule("example.test", 443, methods=("GET",), path_prefix=PREFIX),)
    target = Target("example.test", 443, rules, ())
    with pytest.raises(Denied) as unclear:
        permitting(target, "GET", "/open/../closed")
    assert unclear.value.reason == "ambiguous_path"
    for method, path in (("PUT", "/open/../closed"), ("GET", "/closed")):
        with pytest.raises(Denied) as elsewhere:
            permitting(target, method, path)
        assert elsewhere.value.reason == "no_rule"


def test_a_path_is_read_once_however_many_rules_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the path takes time in which requests of all other sandboxes wait."""
    read: list[str] = []

    def reading(path: str) -> bool:
        read.append(path)
        return is_ambiguous(path)

    monkeypatch.setattr(requests, "is_ambiguous", reading)
    rules = tuple(Rule("example.test", 443, path_prefix="/" + "a" * at) for at in range(64))
    with pytest.raises(Denied, match="not every server"):
        permitting(Target("example.test", 443, rules, ()), "GET", "/" + "a" * 70 + "/../b")
    assert len(read) == 1


def test_a_path_too_long_to_be_read_is_refused_where_a_prefix_counts() -> None:
    """If no prefix has to be compared, the path is sent on."""
    path = "/open/" + "a" * 8192
    below, any_path = Rule("example.test", 443, path_prefix=PREFIX), Rule("example.test", 443)
    with pytest.raises(Denied) as refused:
        permitting(Target("example.test", 443, (below,), ()), "GET", path)
    assert refused.value.reason == "bad_request"
    assert "8192 bytes" in str(refused.value)
    assert permitting(Target("example.test", 443, (any_path,), ()), "GET", path) == any_path
