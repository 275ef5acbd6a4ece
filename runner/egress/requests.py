"""Checks an HTTP request of a client, and rewrites it before anything is sent."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import h11

from runner.egress.decide import Denied, Target
from runner.egress.paths import is_ambiguous
from runner.egress.policy import PORTS, Rule
from runner.network.names import BadName, normalise

Headers = list[tuple[bytes, bytes]]

_ABSOLUTE = re.compile(r"http://([^/?#]*)([/?][^#]*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{1,5}))?")
_HOP_BY_HOP = frozenset(
    {
        b"connection", b"expect", b"keep-alive", b"te", b"trailer", b"transfer-encoding",
        b"upgrade",
    }
)  # fmt: skip
_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)
_MAX_PATH = 8192
"""Bytes of a path that is compared with prefixes, which takes several readings of it. RFC 9110,
section 4.1, recommends 8,000 for a whole address."""
# The characters that a rule's path_prefix may have.
_LITERAL = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_MAX_TOLD = 16 * 1024
"""How many characters of a path the proxy reports. Whoever stores or shows the path shortens it
further, but only after masking secrets, so none may be cut in two before that."""
_FRAMING = frozenset({b"content-length", b"host"})
# By these fields, a framework takes a request for one with another method or another path.
_OTHER_METHOD = frozenset({b"x-http-method", b"x-http-method-override", b"x-method-override"})
_OTHER_PATH = frozenset({b"x-original-uri", b"x-original-url", b"x-override-url", b"x-rewrite-url"})
# A server echoes a TRACE request, so it must not carry secrets (RFC 9110 §9.3.8).
_ECHOING = frozenset({"TRACE", "TRACK"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """The destination of a request in absolute form."""

    host: str
    port: int
    path: str


def split_authority(text: str, default_port: int | None) -> tuple[str, int]:
    """Return host and port of `host:port`. Raises Denied if it has not this form."""
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
    """Refuse a request whose Host header names another host than the one decided on.

    A request of HTTP/1.0 may have none; in any case, the proxy sends its own.
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
    """Refuse a message that two servers may read differently (RFC 9112 §6.3, §11.2)."""
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
    """Return the rule that permits this request; rules that inject come first. Raises Denied."""
    plain = path.partition("?")[0]
    if len(plain) > _MAX_PATH and any(rule.path_prefix for rule in target.rules):
        raise Denied("bad_request", f"the path is longer than {_MAX_PATH} bytes")
    # Read the path once, however many rules there are: requests of other sandboxes wait meanwhile.
    ambiguous: bool | None = None
    unclear: Rule | None = None
    for rule in sorted(target.rules, key=lambda rule: rule.inject is None):
        if rule.methods and method not in rule.methods:
            continue
        if rule.inject and method in _ECHOING:
            continue
        if not plain.startswith(rule.path_prefix):
            continue
        if rule.path_prefix:
            if ambiguous is None:
                ambiguous = is_ambiguous(plain)
            if ambiguous:
                unclear = rule
                continue
        return rule
    if unclear is not None:
        raise Denied(
            "ambiguous_path",
            f"not every server would read {plain[:_MAX_TOLD]} as a path below "
            f"{unclear.path_prefix}; send it without dot segments, backslashes and double encoding",
            rule=unclear,
        )
    raise Denied("no_rule", _wanting(target, method, plain), rule=target.rules[0])


def _wanting(target: Target, method: str, path: str) -> str:
    """Return why no rule permits this request, and which rule would."""
    said = f"no rule for {target.host} permits {method} {path[:_MAX_TOLD]}"
    found = _LITERAL.match(path[:_MAX_TOLD])
    literal = found[0] if found else "/"
    slashed = _ENCODED_SLASH.sub("/", path[:_MAX_PATH])
    for rule in target.rules:
        if slashed.startswith(rule.path_prefix) and (not rule.methods or method in rule.methods):
            return (
                f"{said}: %2f is no slash to every server, so this is not below "
                f'{rule.path_prefix}; the rule would need path_prefix: "{literal}"'
            )
    needed: dict[str, object] = {"host": target.host}
    if target.port != PORTS.get(target.scheme):
        needed["port"] = target.port
    if target.scheme != "https":
        needed["scheme"] = target.scheme
    if any(rule.methods for rule in target.rules):
        needed["methods"] = [method]
    if any(rule.path_prefix for rule in target.rules):
        needed["path_prefix"] = literal
    return f"{said}; the execution would need egress: [{json.dumps(needed)}]"


def rewritten(
    request: h11.Request,
    target: Target,
    path: str,
    rule: Rule,
    secrets: Mapping[str, str],
    *,
    is_looked_into: bool,
) -> h11.Request:
    """Return the request to send: no hop-by-hop fields, our own Host, the secret set.

    If the proxy will look into the answer, it asks for the whole answer, unpacked.
    """
    default = PORTS.get(target.scheme) == target.port
    headers: Headers = [
        (b"Host", (target.host if default else f"{target.host}:{target.port}").encode())
    ]
    dropped = _connection_options(request.headers) | {b"host"}
    if rule.methods:
        dropped |= _OTHER_METHOD
    if rule.path_prefix:
        dropped |= _OTHER_PATH
    if is_looked_into:
        # With ranges, a server could return a secret in parts that are not masked.
        dropped |= {b"accept-encoding", b"range", b"if-range"}
    if rule.inject:
        dropped |= {rule.inject.header.lower().encode()}
    headers += end_to_end(request.headers, dropped)
    if rule.inject:
        value = rule.inject.value(secrets)
        if value is None:
            raise Denied(
                "secret_unusable",
                f"the secret {rule.inject.secret} holds characters that no header may have",
                rule=rule,
            )
        headers.append((rule.inject.header.encode(), value.encode()))
    if is_looked_into:
        headers.append((b"Accept-Encoding", b"identity"))
    if any(name == b"transfer-encoding" for name, _ in request.headers):
        headers.append((b"Transfer-Encoding", b"chunked"))
    return h11.Request(method=request.method, target=path, headers=headers)


def end_to_end(
    headers: Sequence[tuple[bytes, bytes]], dropped: frozenset[bytes] | set[bytes] = frozenset()
) -> Headers:
    """Return the fields that are meant for the other end (RFC 9110 §7.6.1)."""
    gone = _HOP_BY_HOP | _connection_options(headers) | dropped
    return [(name, value) for name, value in headers if not _is_gone(name, gone)]


def _is_gone(name: bytes, gone: frozenset[bytes] | set[bytes]) -> bool:
    # CGI and WSGI read `X_Name` and `X-Name` as the same field (RFC 3875 §4.1.18).
    folded = name.lower().replace(b"_", b"-")
    if folded in gone or folded.startswith(b"proxy-"):
        return True
    return b"_" in name and folded in _FRAMING


def _connection_options(headers: Sequence[tuple[bytes, bytes]]) -> frozenset[bytes]:
    # A client cannot remove the fields that frame the message by naming them in Connection.
    options = {
        option.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    return frozenset(options - _FRAMING)
