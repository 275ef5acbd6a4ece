"""A request's head as the server inside gets it: without what concerns one connection, and us."""

import base64
import json
from collections.abc import Iterable

from starlette.types import Scope

from runner.api.e2b.paths import TRAFFIC_TOKEN
from runner.api.traffic.cookies import Header, PortCookie, without_ours
from runner.api.traffic.destination import PortTarget
from runner.auth import oidc
from runner.auth.keys import Holder

ACCESS_TOKEN = b"x-access-token"
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that concern one connection alone (RFC 9110 7.6.1), if `Connection` names them or not."""
OURS_TO_SAY = frozenset(
    {
        b"host",
        b"cookie",
        # uvicorn has answered it.
        b"expect",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-real-ip",
        ACCESS_TOKEN,
        TRAFFIC_TOKEN.encode(),
    }
)
"""Headers of a client about itself or to us: the server inside is told only what we know."""
_KEYS = tuple(f"{holder.value}_".encode() for holder in Holder)


def head(
    scope: Scope, destination: PortTarget, cookie: PortCookie, issuer: str | None
) -> list[Header]:
    """Return the headers that the server inside gets.

    An `Authorization` that is for us stays here, even where it was not needed.
    """
    given: list[Header] = scope["headers"]
    chunked = any(name == b"transfer-encoding" for name, _ in given)
    dropped = OURS_TO_SAY | HOP_BY_HOP | listed(given)
    if chunked:
        # It overrides a length (RFC 9112 6.3), which no server inside should believe.
        dropped |= {b"content-length"}
    kept = [
        (name, value)
        for name, value in given
        if name not in dropped and not (name == b"authorization" and is_ours(value, issuer))
    ]
    host = dict(given).get(b"host", b"")
    inside = host if destination.by_name else b"localhost:%d" % destination.port
    told = [
        (b"host", inside),
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", b"https" if cookie.secure else b"http"),
    ]
    if scope["client"]:
        told.append((b"x-forwarded-for", scope["client"][0].encode()))
    if destination.prefix:
        told.append((b"x-forwarded-prefix", destination.prefix))
    # By path, a browser's cookies are those of the API's own origin, whoever set them.
    if destination.by_name and (cookies := without_ours(given, cookie)) is not None:
        told.append((b"cookie", cookies))
    # A request without a body needs no length; h11 takes the rest as it is.
    if chunked:
        told.append((b"transfer-encoding", b"chunked"))
    return [*told, *kept]


def upgrade(scope: Scope) -> bytes:
    """Return what the client wants to speak instead of HTTP, as it says it."""
    headers: list[Header] = scope["headers"]
    return dict(headers).get(b"upgrade", b"")


def listed(headers: Iterable[Header]) -> frozenset[bytes]:
    """Return the names of headers that `Connection` says are for this connection alone.

    Where a message ends and whom it is for is never among them (RFC 9110 7.6.1).
    """
    named = frozenset(
        each.strip().lower()
        for name, value in headers
        if name == b"connection"
        for each in value.split(b",")
    )
    return named - {b"content-length", b"host"}


def is_ours(authorization: bytes, issuer: str | None) -> bool:
    """Return whether an `Authorization` is for this API: a key, or a token of our issuer.

    Anything else is for the server inside.
    """
    scheme, _, token = authorization.strip().partition(b" ")
    if scheme.lower() != b"bearer":
        return False
    token = token.strip()
    return token.startswith(_KEYS) or (issuer is not None and _issuer_of(token) == issuer)


def _issuer_of(token: bytes) -> object:
    """Return whom a JWT names as its issuer, without any proof of it."""
    text = token.decode("latin-1")
    if not oidc.looks_like_one(text) or len(text) > oidc.MAX_TOKEN:
        return None
    body = text.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims.get("iss") if isinstance(claims, dict) else None
