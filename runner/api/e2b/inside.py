"""Dependencies of routes inside a sandbox: the caller and the sandbox."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from fastapi.responses import JSONResponse

from runner.api.deps import CanUseSandboxes, Parts
from runner.api.e2b.paths import NAMED, PORTS
from runner.api.e2b.shape import SANDBOX, gone, named
from runner.api.problems import Answered
from runner.auth.caller import Caller
from runner.auth.sandbox_tokens import ANSWER, Acting
from runner.sandboxes.place import Asleep
from runner.words.errors import Conflict, Gone, NotAuthenticated, NotFound

USER = "user"
"""The user of a sandbox whose template names none."""


@dataclass(frozen=True, slots=True)
class Inside:
    """A caller in a sandbox of its tenant that runs, or that its use resumes.

    `path` is set for a signed address: the only file that may be read or written.
    """

    caller: Caller
    sandbox_id: UUID
    user: str
    """Whom commands run as, and files belong to."""
    path: str | None = None


async def inside(request: Request, caller: CanUseSandboxes, parts: Parts) -> Inside:
    """Return who calls in which sandbox.

    Raises Answered with 502 if the request names another sandbox than its token's, or a port of it
    where E2B has nothing, and if the sandbox has ended or is paused. What a request that names an
    unknown sandbox is answered depends on nothing that exists.
    """
    acting = request.scope.get(SANDBOX)
    if not isinstance(acting, Acting):
        raise NotAuthenticated(ANSWER)
    if named(request).lower() != str(acting.sandbox_id):
        raise Answered(gone(request))
    if (port := _port(request)) is not None:
        raise Answered(_closed(request, port))
    try:
        await parts.using.places.locate(caller, acting.sandbox_id)
    except Asleep:
        # Whatever acts in it wakes it.
        pass
    except (NotFound, Gone, Conflict):
        raise Answered(gone(request)) from None
    user = await parts.using.places.user_of(caller, acting.sandbox_id)
    return Inside(caller, acting.sandbox_id, user or USER, acting.path)


InSandbox = Annotated[Inside, Depends(inside)]


def _port(request: Request) -> str | None:
    """Return the port that a request is for, if E2B has nothing there."""
    by_name = request.scope.get(NAMED)
    port = str(by_name[1]) if by_name else request.headers.get("e2b-sandbox-port")
    return None if port is None or port in map(str, PORTS) else port[:32]


def _closed(request: Request, port: str) -> JSONResponse:
    """Return what E2B answers for a port on which nothing listens."""
    body = {
        "sandboxId": named(request),
        "message": "The sandbox is running but port is not open",
        "port": int(port) if port.isascii() and port.isdecimal() else 0,
        "code": 502,
    }
    return JSONResponse(body, HTTPStatus.BAD_GATEWAY)
