"""The context of every request: its id and its origin."""

from fastapi import Request

from runner.audit.events import Origin
from runner.auth.caller import Caller
from runner.words.principal import Principal
from runner.words.text import printable

MAX_USER_AGENT = 256
TRACE = "runner.trace"
"""Key in the ASGI scope: the request's place in a trace, if it has one."""


def request_id(request: Request) -> str:
    """Return the request's id, set by the middleware before anything else looks at it."""
    return str(request.scope.get("runner.request_id", "unknown"))


def origin(request: Request) -> Origin:
    """Return where the request came from, for the audit log."""
    agent = request.headers.get("user-agent")
    return Origin(
        ip=request.client.host if request.client else None,
        user_agent=printable(agent[:MAX_USER_AGENT]) if agent else None,
        request_id=request_id(request),
    )


def caller(request: Request, principal: Principal) -> Caller:
    """Return the principal as the caller that makes the request."""
    return Caller(principal, origin(request), request.scope.get(TRACE))
