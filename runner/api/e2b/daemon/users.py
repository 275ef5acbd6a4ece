"""The user whom a client names: a sandbox has only one, `user` unless its template says so."""

import base64
import binascii
from typing import Annotated

from fastapi import Depends, Header

from runner.api.e2b.daemon.connect import Code, ConnectError
from runner.api.e2b.inside import InSandbox, Inside

MAX_SHOWN = 40


async def calling_user(
    inside: InSandbox,
    authorization: Annotated[
        str | None,
        Header(description="`Basic user:`, which names a user, and proves nothing."),
    ] = None,
) -> None:
    """Check the user of a call. Raises ConnectError for any other than the sandbox's."""
    scheme, _, given = (authorization or "").partition(" ")
    if not given or scheme.lower() != "basic":
        return
    try:
        name = base64.b64decode(given, validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        raise ConnectError(Code.UNAUTHENTICATED, "the user must be `Basic` and base64") from None
    require_user(name, inside)


CallingUser = Annotated[None, Depends(calling_user)]


def require_user(name: str | None, inside: Inside) -> None:
    """Refuse a user who is not there. Raises ConnectError."""
    if name in {None, "", inside.user}:
        return
    only = f"commands and files are of `{inside.user}`"
    why = (
        f"nobody is root in a sandbox: {only}"
        if name == "root"
        else f"there is no user {name!r:.{MAX_SHOWN}}: {only}"
    )
    raise ConnectError(Code.PERMISSION_DENIED, why)
