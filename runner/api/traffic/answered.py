"""An answer's head as the client gets it: nothing of it may act on our origin or connection."""

import re

import h11

from runner.api.traffic.asked import HOP_BY_HOP, listed
from runner.api.traffic.cookies import Header, PortCookie
from runner.api.traffic.destination import PortTarget

SANDBOXED = (
    b"sandbox allow-downloads allow-forms allow-modals allow-pointer-lock allow-popups "
    b"allow-popups-to-escape-sandbox allow-presentation allow-scripts"
)
"""A page by path is of an origin of its own, that is no other page's (CSP 3, 6.3.2)."""

_ABOUT_MORE = frozenset(
    {
        # What a browser keeps about a whole host, or does to it, beyond this answer.
        b"alt-svc",
        b"clear-site-data",
        b"accept-ch",
        b"critical-ch",
        b"expect-ct",
        b"nel",
        b"public-key-pins",
        b"public-key-pins-report-only",
        b"report-to",
        b"reporting-endpoints",
        # What intermediaries obey, as a proxy in front of us.
        b"surrogate-control",
        b"x-accel-buffering",
        b"x-accel-charset",
        b"x-accel-expires",
        b"x-accel-limit-rate",
        b"x-accel-redirect",
        b"x-sendfile",
        b"x-lighttpd-send-file",
        # The server and this API say these themselves.
        b"date",
        b"x-request-id",
    }
)
_ABOUT_OUR_ORIGIN = frozenset(
    {
        b"access-control-allow-credentials",
        b"cross-origin-embedder-policy",
        b"cross-origin-opener-policy",
        # What the API's host would register with a browser, run there, or be logged in by.
        b"attribution-reporting-register-os-source",
        b"attribution-reporting-register-os-trigger",
        b"attribution-reporting-register-source",
        b"attribution-reporting-register-trigger",
        b"observe-browsing-topics",
        b"sec-session-challenge",
        b"sec-session-registration",
        b"secure-session-challenge",
        b"secure-session-registration",
        b"set-login",
        b"shared-storage-write",
        b"speculation-rules",
        b"use-as-dictionary",
        b"origin-agent-cluster",
        b"service-worker-allowed",
        b"set-cookie",
        b"strict-transport-security",
        # A browser would ask for a password in the name of the API's host.
        b"www-authenticate",
        b"x-content-type-options",
    }
)
_MARKS: tuple[Header, ...] = (
    (b"content-security-policy", SANDBOXED),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)
_WEBSOCKET = b"sec-websocket-"
_DOMAIN = re.compile(rb"\s*domain\s*(=.*)?", re.IGNORECASE)


def head(answer: h11.Response, destination: PortTarget, cookie: PortCookie) -> list[Header]:
    """Return the headers that the client gets of an answer from inside."""
    given = [(bytes(name), bytes(value)) for name, value in answer.headers]
    dropped = HOP_BY_HOP | _ABOUT_MORE | listed(given)
    if any(name == b"transfer-encoding" for name, _ in given):
        # It overrides a length (RFC 9112 6.3), which then is none.
        dropped |= {b"content-length"}
    if not destination.by_name:
        dropped |= _ABOUT_OUR_ORIGIN
    kept = [each for each in given if each[0] not in dropped]
    if destination.by_name:
        return _with_cookies(kept, cookie)
    return _by_path(kept, destination)


def switching(
    answer: h11.InformationalResponse, cookie: PortCookie, *, by_name: bool
) -> list[Header]:
    """Return the headers of an answer of 101."""
    given = [(bytes(name), bytes(value)) for name, value in answer.headers]
    told = (b"connection", b"Upgrade")
    if not by_name:
        # The answer is our origin's: nothing passes but what the new protocol needs.
        return [
            told,
            *(each for each in given if each[0] == b"upgrade" or each[0].startswith(_WEBSOCKET)),
        ]
    dropped = (HOP_BY_HOP - {b"upgrade"}) | _ABOUT_MORE | {b"content-length"}
    kept = [each for each in given if each[0] not in dropped]
    return [told, *_with_cookies(kept, cookie)]


def _by_path(given: list[Header], destination: PortTarget) -> list[Header]:
    kept = [
        (name, _below(value, destination) if name == b"location" else value)
        for name, value in given
    ]
    names = {name for name, _ in kept}
    # The page is of another origin than its own images and scripts.
    defaults = (
        (b"cross-origin-resource-policy", b"cross-origin"),
        (b"cache-control", b"no-store"),
    )
    return [*kept, *_MARKS, *(each for each in defaults if each[0] not in names)]


def _with_cookies(given: list[Header], cookie: PortCookie) -> list[Header]:
    """Return headers of which every cookie is the port's own host's alone, and none is ours."""
    kept = []
    for name, value in given:
        own = _host_only(value, cookie) if name == b"set-cookie" else value
        if own is not None:
            kept.append((name, own))
    return kept


def _host_only(value: bytes, cookie: PortCookie) -> bytes | None:
    """Return a cookie that no other host gets; None for one that has a name of ours."""
    if cookie.is_ours(value.partition(b"=")[0]):
        return None
    first, *rest = value.split(b";")
    return b";".join([first, *(each for each in rest if not _DOMAIN.fullmatch(each))])


def _below(location: bytes, destination: PortTarget) -> bytes:
    """Return where a redirection leads by path: the server inside knows nothing of our prefix."""
    own = re.fullmatch(rb"http://(?:localhost|127\.0\.0\.1):%d(/.*)?" % destination.port, location)
    if own is not None:
        location = own[1] or b"/"
    if location.startswith(b"/") and not location.startswith((b"//", b"/\\")):
        return destination.prefix + location
    return location
