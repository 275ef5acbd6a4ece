"""E2B's requests, known by their paths alone: the control plane's, or those inside a sandbox.

The two sets have no path in common with each other or with the API's own, so one address serves
all three.
"""

import re
from enum import Enum, auto

from starlette.datastructures import Headers, QueryParams
from starlette.types import Scope

DAEMON_PORT = 49983
"""The port at which E2B's clients expect the daemon of a sandbox: commands and files."""
INTERPRETER_PORT = 49999
"""The port at which they expect its code interpreter."""
PORTS = frozenset({DAEMON_PORT, INTERPRETER_PORT})
FILES = "/files"
"""The path of files inside a sandbox, also by signed addresses."""
TRAFFIC_TOKEN = "e2b-traffic-access-token"  # noqa: S105 - the name of a header
"""The header with the token for a sandbox's ports."""
ACCESS_TOKEN = "x-access-token"  # noqa: S105 - the name of a header
"""The header with a sandbox's token."""
NAMED = "runner.e2b.named"
"""In the scope of a request to a name such as `49983-{id}.{domain}`: the sandbox's id and port."""


class Part(Enum):
    """A part of E2B's interface."""

    CONTROL = auto()
    INSIDE = auto()


_CONTROL = re.compile(
    r"/(?:v[23]/)?(?:sandboxes|snapshots|templates|default-templates|volumes|secrets|volumecontent)"
    r"(?:/|\Z)"
)
_INSIDE = re.compile(
    r"/(?:files|health|envs|execute|contexts|process\.Process|filesystem\.Filesystem)(?:/|\Z)"
)
_RPC = re.compile(r"/(?:process\.Process|filesystem\.Filesystem)/")


def part_of(path: str) -> Part | None:
    """Return which part of E2B's interface a path, or a route's template, belongs to, if any."""
    if _INSIDE.match(path):
        return Part.INSIDE
    return Part.CONTROL if _CONTROL.match(path) else None


def is_context(path: str) -> bool:
    """Return whether a path is about code contexts, without running code."""
    return path == "/contexts" or path.startswith("/contexts/")


def is_call(path: str) -> bool:
    """Return whether a path is a remote procedure call in the Connect protocol."""
    return _RPC.match(path) is not None


def signature_of(scope: Scope) -> QueryParams | None:
    """Return the query of a request for a file that counts by its signature; None for any other.

    A token counts before a signature.
    """
    if scope["path"] != FILES or ACCESS_TOKEN in Headers(scope=scope):
        return None
    query = QueryParams(scope["query_string"])
    return query if "signature" in query else None


def path_of(scope: Scope) -> str:
    """Return the path of a scope; "" for a request that failed before it had one."""
    return str(scope.get("path", ""))
