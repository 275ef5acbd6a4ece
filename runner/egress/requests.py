"""What a client's HTTP request asks for, judged and rewritten before anything is sent."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import h11

from runner.egress.decide import Denied, Target
from runner.egress.names import BadName, normalise
from runner.egress.policy import PORTS, Rule

Headers = list[tuple[bytes, bytes]]

_ABSOLUTE = re.compile(r"http://([^/?#]*)([/?][^#]*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{1,5}))?")
_FIELD_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_HOP_BY_HOP = frozenset(
    {
        b"connection", b"expect", b"keep-alive", b"te", b"trailer", b"transfer-encoding",
        b"upgrade",
    }
)  # fmt: skip
# Spellings of a path that a server may read as another one than the prefix was compared with.
_TWO_READINGS = (
    "/../", "/./", "/..;", "/.;", "//", "\\", "%2e", "%2f", "%5c", "%3b", "%25", "%0", "%c0", "%c1",
)  # fmt: skip
# Fields by which a framework takes a request for one of another method, or of another path.
_OTHER_METHOD = frozenset({b"x-http-method", b"x-http-method-override", b"x-method-override"})
_OTHER_PATH = frozenset({b"x-original-url", b"x-rewrite-url"})
# RFC 9110 §9.3.8: what is echoed must not be sensitive.
_ECHOING = frozenset({"TRACE", "TRACK"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where a request of absolute form leads."""

    host: str
    port: int
    path: str


def split_authority(text: str, default_port: int | None) -> tuple[str, int]:
    """Return host and port of `host:port`. Raises Denied when it is neither."""
    match = _AUTHORITY.fullmatch(text)
    port = int(match[2]) if match and match[2] else default_port
    if match is None or port is None or not 0 < port < 2**16:
        raise Denied("bad_request", "the request does not name a host and a port")
    return match[1], port


def of_absolute_form(request: h11.Request) -> Wanted:
    """Return where `GET http://host/path` leads. Raises Denied."""
    match = _ABSOLUTE.fullmatch(request.target.decode("ascii"))
    if match is None:
        raise Denied(
            "bad_request", "this proxy takes `http://…` requests, and CONNECT for everything else"
        )
    host, port = split_authority(match[1], PORTS["http"])
    path = match[2] or "/"
    return Wanted(host, port, path if path.startswith("/") else f"/{path}")


def of_origin_form(request: h11.Request) -> str:
    """Return the path of `GET /path`. Raises Denied."""
    path = request.target.decode("ascii")
    if not path.startswith("/") or "#" in path:
        raise Denied("bad_request", "inside a tunnel a request names a path only")
    return path


def check_host(request: h11.Request, host: str, port: int, scheme: str) -> None:
    """Refuse a request whose Host header names something else than was decided on.

    One of HTTP/1.0 may have none: the host that is sent on is ours in any case.
    """
    named = [value for name, value in request.headers if name == b"host"]
    for value in named:
        given, given_port = split_authority(value.decode("latin-1"), PORTS[scheme])
        try:
            same = (normalise(given), given_port) == (host, port)
        except BadName:
            same = False
        if not same:
            raise Denied("host_mismatch", f"the Host header is not {host}, port {port}")


def check_framing(request: h11.Request) -> None:
    """Refuse what two servers may read as two different messages (RFC 9112 §6.3, §11.2)."""
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names and (
        b"content-length" in names or request.http_version != b"1.1"
    ):
        raise Denied("bad_request", "the request has two lengths")
    if b"upgrade" in names:
        raise Denied(
            "upgrade",
            "WebSocket and other upgrades are not carried where requests are looked into",
        )


def permitting(target: Target, method: str, path: str) -> Rule:
    """Return the rule that permits this request, one that injects before others. Raises Denied."""
    plain = path.partition("?")[0]
    ambiguous = any(reading in f"{plain.lower()}/" for reading in _TWO_READINGS)
    for rule in sorted(target.rules, key=lambda rule: rule.inject is None):
        if rule.methods and method not in rule.methods:
            continue
        if rule.inject and method in _ECHOING:
            continue
        if rule.path_prefix and (ambiguous or not plain.startswith(rule.path_prefix)):
            continue
        return rule
    raise Denied(
        "no_rule",
        f"no rule for {target.host} permits {method} {plain[:200]}",
        rule=target.rules[0],
    )


def rewritten(
    request: h11.Request, target: Target, path: str, rule: Rule, secrets: Mapping[str, str]
) -> h11.Request:
    """Return the request as it is sent on: hop-by-hop fields gone, Host ours, the secret set."""
    default = PORTS.get(target.scheme) == target.port
    headers: Headers = [
        (b"Host", (target.host if default else f"{target.host}:{target.port}").encode())
    ]
    dropped = _connection_options(request.headers) | {b"host"}
    if rule.methods:
        dropped |= _OTHER_METHOD
    if rule.path_prefix:
        dropped |= _OTHER_PATH
    if rule.inject:
        # In ranges an answer that repeats the secret would come in parts that are none.
        dropped |= {rule.inject.header.lower().encode(), b"accept-encoding", b"range", b"if-range"}
    headers += end_to_end(request.headers, dropped)
    if rule.inject:
        value = rule.inject.prefix + secrets[rule.inject.secret]
        if not _FIELD_VALUE.fullmatch(value):
            raise Denied(
                "secret_unusable",
                f"the secret {rule.inject.secret} holds what no header may",
                rule=rule,
            )
        # In clear, so that an answer that repeats the secret can be masked.
        headers += [
            (b"Accept-Encoding", b"identity"),
            (rule.inject.header.encode(), value.encode()),
        ]
    if any(name == b"transfer-encoding" for name, _ in request.headers):
        headers.append((b"Transfer-Encoding", b"chunked"))
    return h11.Request(method=request.method, target=path, headers=headers)


def end_to_end(
    headers: Sequence[tuple[bytes, bytes]], dropped: frozenset[bytes] | set[bytes] = frozenset()
) -> Headers:
    """Return the fields that are meant for the other end (RFC 9110 §7.6.1)."""
    gone = _HOP_BY_HOP | _connection_options(headers) | dropped
    return [
        (name, value)
        for name, value in headers
        if name not in gone and not name.startswith(b"proxy-")
    ]


def _connection_options(headers: Sequence[tuple[bytes, bytes]]) -> frozenset[bytes]:
    # What frames the message cannot be made to vanish by naming it here.
    options = {
        option.strip().lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }
    return frozenset(options - {b"content-length", b"host"})
