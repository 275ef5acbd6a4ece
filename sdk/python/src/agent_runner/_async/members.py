"""The members of the tenant: `client.members`."""

from collections.abc import Sequence
from urllib.parse import quote

import httpx

from agent_runner._async.calls import call, delete
from agent_runner.answers import INVITATION, MEMBER, MEMBERS
from agent_runner.types import Invitation, Member

_MEMBERS = "/v1/members"


class AsyncMembers:
    """Members and open invitations. Nobody gives a role that their own does not permit."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def list(self) -> Sequence[Member]:
        """Return members and open invitations, oldest first; the first thousand."""
        return await call(self._http, MEMBERS, "GET", _MEMBERS)

    async def invite(self, email: str, role: str) -> Invitation:
        """Invite an address, in place of earlier invitations; return the token, this once.

        Hand the token on yourself: no mail is sent. It is valid for seven days. Raises ApiError.
        """
        body = {"email": email, "role": role}
        return await call(self._http, INVITATION, "POST", _MEMBERS, json=body)

    async def change_role(self, member_id: str, role: str) -> Member:
        """Give a member another role; keys and invitations that it does not permit end."""
        return await call(self._http, MEMBER, "PATCH", _path(member_id), json={"role": role})

    async def remove(self, member_id: str) -> None:
        """End a membership with its sessions, keys and invitations, or withdraw an invitation."""
        await delete(self._http, _path(member_id))


def _path(member_id: str) -> str:
    return f"{_MEMBERS}/{quote(member_id, safe='')}"
