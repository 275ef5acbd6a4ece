"""The user whom a client names: in a sandbox, there is only `user`."""

import base64
import binascii
from typing import Annotated

from fastapi import Depends, Header

from runner.api.e2b.daemon.answers import USER
from runner.api.e2b.daemon.connect import Code, ConnectError

MAX_SHOWN = 40


async def calling_user(
    authorization: Annotated[
        str | None,
        Header(description="`Basic user:`, which names a user, and proves nothing."),
    ] = None,
) -> None:
    """Check the user of a call. Raises ConnectError for any other than ours."""
    scheme, _, given = (authorization or "").partition(" ")
    if not given or scheme.lower() != "basic":
        return
    try:
        name = base64.b64decode(given, validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        raise ConnectError(Code.UNAUTHENTICATED, "the user must be `Basic` and base64") from None
    require_user(name)


CallingUser = Annotated[None, Depends(calling_user)]


def require_user(name: str | None) -> None:
    """Refuse a user who is not there. Raises ConnectError."""
    if name in {None, "", USER}:
        return
    why = (
        "nobody is root in a sandbox: commands and files are of `user`"
        if name == "root"
        else f"there is no user {name!r:.{MAX_SHOWN}}: commands and files are of `user`"
    )
    raise ConnectError(Code.PERMISSION_DENIED, why)
