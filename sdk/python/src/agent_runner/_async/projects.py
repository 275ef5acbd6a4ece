"""The tenant's projects: `client.projects`."""

from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx

from agent_runner._async.calls import call, delete
from agent_runner.answers import PROJECT, PROJECTS
from agent_runner.transport import params
from agent_runner.types import Project

_PROJECTS = "/v1/projects"


class AsyncProjects:
    """Projects by name. Submissions and new sandboxes name the one they belong to."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def list(self) -> AsyncIterator[Project]:
        """Yield every project, by name."""
        cursor = None
        while True:
            asked = params(cursor=cursor, limit=200)
            found, cursor = await call(self._http, PROJECTS, "GET", _PROJECTS, params=asked)
            for each in found:
                yield each
            if cursor is None:
                return

    async def get(self, name: str) -> Project:
        """Return a project. Raises NotFound when there is none."""
        return await call(self._http, PROJECT, "GET", _path(name))

    async def create(
        self, name: str, *, description: str = "", egress_policy: str | None = None
    ) -> Project:
        """Make a project. `egress_policy` is for what names none itself. Raises ApiError."""
        body = {"name": name, "description": description, "egress_policy": egress_policy}
        return await call(self._http, PROJECT, "POST", _PROJECTS, json=body)

    async def put(
        self, name: str, *, description: str = "", egress_policy: str | None = None
    ) -> Project:
        """Give a project these settings, in place of all that it had. Raises ApiError."""
        body = {"description": description, "egress_policy": egress_policy}
        return await call(self._http, PROJECT, "PUT", _path(name), json=body)

    async def delete(self, name: str) -> None:
        """Delete a project. What belonged to it stays, and belongs to none."""
        await delete(self._http, _path(name))


def _path(name: str) -> str:
    return f"{_PROJECTS}/{quote(name, safe='')}"
