"""How a client is told why it was refused: in the status line, in a header, and on a short page.

Many clients show only one of them. For a refused CONNECT, the libraries of Python, Go and Java show
the status line, and Node's shows the status; none of them reads the page. The statuses are ones
after which clients do not repeat a request (urllib3, curl --retry, npm), unless a later request may
succeed.
"""

import h11

from runner.egress.decide import Denied
from runner.egress.upstream import Unreachable
from runner.words.text import shortened

MAX_REASON = 400
_SERVER = b"agent-runner-egress"
_FORBIDDEN, _TOO_MANY, _BAD_GATEWAY = 403, 429, 502
# Error types of RFC 9209 §2.3, for `Proxy-Status`.
_ERRORS = {
    "byte_budget": "connection_limit_reached",
    "connection_budget": "connection_limit_reached",
    "lookup_failed": "dns_error",
    "private_address": "destination_ip_prohibited",
    "too_many_at_once": "connection_limit_reached",
    "unreachable": "destination_unavailable",
}


def told(why: Denied, status: int | None = None) -> tuple[h11.Response, bytes]:
    """Return the head and the page of the answer; the connection ends after it."""
    detail = shortened(why.detail)
    page = f"The egress proxy: {detail}.\nReason: {why.reason}\n".encode()
    head = h11.Response(
        status_code=status or _status(why),
        reason=_plain(f"{_verb(why)} by the egress proxy ({why.reason}): {detail}"),
        headers=[
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Content-Length", str(len(page)).encode()),
            (b"Server", _SERVER),
            (b"Proxy-Status", _proxy_status(why, detail)),
            (b"Connection", b"close"),
        ],
    )
    return head, page


def _status(why: Denied) -> int:
    if isinstance(why, Unreachable):
        return _BAD_GATEWAY
    return _TOO_MANY if why.reason == "too_many_at_once" else _FORBIDDEN


def _verb(why: Denied) -> str:
    return "Not reached" if isinstance(why, Unreachable) else "Refused"


def _proxy_status(why: Denied, detail: str) -> bytes:
    """Return the header's value (RFC 9209): which proxy, what kind of error, and the reason."""
    kind = _ERRORS.get(why.reason, "http_request_denied").encode()
    text = _plain(f"{why.reason}: {detail}").replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'%b; error=%b; details="%b"' % (_SERVER, kind, text)


def _plain(text: str) -> bytes:
    """Return one line of printable ASCII, as status lines and structured fields require."""
    line = "".join(each if " " <= each <= "~" else "?" for each in text)
    return (line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 3]}...").encode("ascii")
